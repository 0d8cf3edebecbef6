"""`dpmed reconstruct`."""
