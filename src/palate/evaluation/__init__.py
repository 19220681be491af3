"""Measure scorers against people, and generators against each other."""
