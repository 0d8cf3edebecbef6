"""Data sets: one class each, read from the files as their source ships them."""
