"""`dpmed bounds`."""
