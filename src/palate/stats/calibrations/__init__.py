"""Scores as probabilities: one scale, the curve that judges it, and the likelihood it maximises."""
