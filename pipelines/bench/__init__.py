"""Speeds on this machine, as ratios in one run."""
