"""Which parts of a network are trained: low-rank adapters, chosen leaves, and the head separated from the trunk."""
