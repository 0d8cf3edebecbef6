"""Which files a data set has, and whose they are, by untrusted folders, tables and headers."""
