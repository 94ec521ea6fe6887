"""How the jobs of a build or a proof are run: executors, progress, and an orderly stop."""
