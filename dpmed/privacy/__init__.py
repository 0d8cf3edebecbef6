"""Privacy accounting and bounds: numbers in, numbers out; no jax, no config, no files."""
