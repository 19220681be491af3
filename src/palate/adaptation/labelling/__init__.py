"""Scores to labels: which images to learn from and which to avoid, by a rule with a name."""
