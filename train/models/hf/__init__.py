"""Any causal model of transformers, or of a package that registers with it, with random weights."""
