"""How many prompts, people and votes a comparison needs, by simulating the study."""
