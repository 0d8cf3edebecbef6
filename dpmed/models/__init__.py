"""Equinox models for one sample each, channels last; batching is left to `jax.vmap`."""
