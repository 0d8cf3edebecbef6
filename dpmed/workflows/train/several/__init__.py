"""Several trainings of one command: over seeds and ε, selections and tunings."""
