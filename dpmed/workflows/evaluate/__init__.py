"""`dpmed evaluate`."""
