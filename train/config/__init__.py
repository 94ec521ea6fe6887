"""The settings of a run; their defaults stand in `conf/`."""
