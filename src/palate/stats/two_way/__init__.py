"""How sure a number is when prompts and people both repeat."""
