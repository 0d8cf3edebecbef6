"""The configuration: what a TOML file may say, what it means, and how it is read."""
