"""Networks, their tokens, their pixels and their files."""
