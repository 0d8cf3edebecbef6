"""`dpmed visualize`."""
