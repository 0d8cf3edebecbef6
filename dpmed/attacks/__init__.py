"""What a malicious server can recover from an update, for auditing one's own training."""
