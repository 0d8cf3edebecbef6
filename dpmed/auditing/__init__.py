"""Auditing a training: canaries that are included or not, guesses about them, and the lower limit on ε that follows."""
