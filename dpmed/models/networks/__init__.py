"""The shipped networks, a file each."""
