"""Any `nn.Module` of the user's that gives logits, as a model of this project."""
