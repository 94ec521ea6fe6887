"""The rows that a run trains on and is evaluated on."""
