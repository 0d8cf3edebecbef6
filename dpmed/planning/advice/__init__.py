"""Advice before a training, from public facts alone: how large its batches, how many its steps, and can it work."""
