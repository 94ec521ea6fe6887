"""Third floor: what feeds rows to training. Needs torch; imports pipelines and the core."""
