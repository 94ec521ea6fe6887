"""What happens in each step of training, and what survives a kill."""
