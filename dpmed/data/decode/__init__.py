"""Hostile bytes to arrays."""
