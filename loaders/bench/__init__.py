"""Speeds of the loaders: `streams` for `synthshards bench`, and `rivals`, which reads the same rows with other people's
libraries, each in an environment of its own (`peers` is what runs there)."""
