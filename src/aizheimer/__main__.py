"""Run the command line as ``python -m aizheimer``."""

import sys

from aizheimer.cli import main

if __name__ == "__main__":
    sys.exit(main())
