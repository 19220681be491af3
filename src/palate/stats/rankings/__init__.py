"""Strengths of items from choices, how sure they are, and which can be told apart."""
