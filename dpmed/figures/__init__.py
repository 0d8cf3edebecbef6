"""Figures: tables in, files out; never a config or a model."""
