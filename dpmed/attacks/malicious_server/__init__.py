"""The attack of a malicious server: a block in front of the model, whose gradient holds the images of a batch."""
