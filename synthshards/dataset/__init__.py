"""A finished folder of shards: its manifest, and reading it."""
