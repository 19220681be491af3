"""The command line: arguments become settings, then one call, then a sentence."""
