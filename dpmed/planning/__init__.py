"""A training, settled before its first step: data, model, budget, and what it begins with."""
