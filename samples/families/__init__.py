"""What the samples of the families share."""
