"""Where rows come from: the shards of a dataset, or its task."""
