"""Lets ``python -m palate`` do what the command ``palate`` does."""

import sys

from palate.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
