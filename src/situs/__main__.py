"""``python -m situs`` is the command ``situs``."""

import sys

from situs.cli import main

if __name__ == "__main__":
    sys.exit(main())
