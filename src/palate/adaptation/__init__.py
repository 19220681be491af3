"""From scores to a better generator: label images by score, then adapt the generator to the labels."""
