"""A depth-recurrent Olmo3."""
