"""What the commands share: options, messages, the console."""
