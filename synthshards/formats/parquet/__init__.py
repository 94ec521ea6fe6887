"""Parquet shards, written and read page by page."""
