"""Synthetic data sets in the exact layout of real ones; each module writes what its reader reads."""
