"""A training put to the test: canaries that are in it or not, guesses, and what these say of ε at least."""
