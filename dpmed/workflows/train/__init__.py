"""`dpmed train`."""
