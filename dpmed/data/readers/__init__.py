"""One data set, one file: from its own layout to a `Dataset`."""
