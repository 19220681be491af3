"""How far people agree with each other, and what a scorer can reach at best."""
