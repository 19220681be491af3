"""Text-to-image: prompts in, an images table out, the same image whatever the batch or the restart."""
