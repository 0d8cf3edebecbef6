"""Advice before a training, from public facts alone: batch size, number of steps, and whether it can work."""
