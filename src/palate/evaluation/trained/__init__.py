"""What came out of a training: measured as a user would, and described in a model card."""
