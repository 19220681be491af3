"""From images and prompts to scores: what a scorer promises, which there are, and the verb."""
