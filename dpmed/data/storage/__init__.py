"""Data sets on disk: downloads, the cache of decoded samples, files that change while they are read."""
