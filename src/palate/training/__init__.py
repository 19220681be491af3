"""Teaching a scorer from choices: losses, batches, the one loop, and the verb."""
