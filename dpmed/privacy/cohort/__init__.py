"""All runs on the same patients together: which units took part in which, and what each has spent."""
