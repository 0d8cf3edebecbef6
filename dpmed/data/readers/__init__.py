"""One module per data set: from its own layout to a `Dataset`."""
