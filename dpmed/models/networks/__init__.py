"""The shipped networks, one per file."""
