"""What a build keeps in the dataset's folder while it works: lock, journal, scratch files."""
