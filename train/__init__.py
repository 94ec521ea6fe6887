"""Top floor: training and learning-curve scripts. Needs torch and transformers; nothing imports it."""
