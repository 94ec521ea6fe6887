"""Where a dataset's files lie: local folders and object stores behind one interface."""
