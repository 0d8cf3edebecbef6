"""Benchmarks: speed is measured here, never in a test. `make bench` runs them all."""
