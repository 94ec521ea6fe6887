"""How well a model does: logits, generation, and the metric of each task."""
