"""Differentially private SGD: sampling, gradients, clipping, noise, and the step that joins them."""
