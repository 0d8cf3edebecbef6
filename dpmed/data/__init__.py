"""Data sets: one class each, read from files as distributed by their source."""
