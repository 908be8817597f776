"""`python -m p2p.writer`; see `p2p.writer.process`."""

import sys

from p2p.writer.process import main

sys.exit(main(sys.argv[1:]))
