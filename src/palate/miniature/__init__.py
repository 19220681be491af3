"""A small simulated world with known taste: for the demo, the tutorial and the tests."""
