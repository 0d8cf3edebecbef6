"""Recovered images on disk: the manifest that describes them, and the files themselves."""
