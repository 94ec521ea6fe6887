"""The models that `model=NAME` can choose."""
