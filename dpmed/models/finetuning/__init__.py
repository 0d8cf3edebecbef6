"""What of a network is trained: low-rank adapters, chosen leaves, and the head apart from what lies before it."""
