"""The files of a stored dataset: fetched, checked, cached, read by blocks, and healed."""
