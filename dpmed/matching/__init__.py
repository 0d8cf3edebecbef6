"""Distances between originals and reconstructions, and the assignment of one to the other."""
