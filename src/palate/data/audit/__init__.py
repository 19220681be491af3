"""Look a data set over before anything learns from it; nothing is changed and nothing refused."""
