"""Capo: knowledge capacity. `pools/` holds its names, values and sentences."""
