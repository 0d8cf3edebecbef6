"""Everything about a training that is settled before its first step: data, model, budget, initial state."""
