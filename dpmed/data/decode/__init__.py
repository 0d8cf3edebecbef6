"""Decodes untrusted files to arrays."""
