"""Figures: tables in, files out; never a config or a model."""

from dpmed.runtime.docstrings import leave_artists

# Here, since this comes before every import of Matplotlib in this package.
leave_artists()
