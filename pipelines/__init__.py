"""Second floor: plans, builds and proofs of shards. Imports the core, never the loaders or training."""
