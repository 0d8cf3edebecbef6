"""Volumes at prediction: overlapping windows, and the scan's own grid."""
