"""Run the command line as `python -m p2p`."""

import sys

from p2p.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
