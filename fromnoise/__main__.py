"""`python -m fromnoise`: the command, for launchers that start modules, as torchrun does."""

import sys

from fromnoise.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
