"""How a process is started that is a writer and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import p2p

# -P: what lies in the current directory is not for a privileged process to import.
# The package need not be installed to be found by the process too.
_PROGRAM = """\
import sys
sys.path.append(sys.argv.pop(1))
from p2p.writer.process import main
sys.exit(main(sys.argv[1:]))
"""
WRITER_COMMAND = (
    sys.executable,
    "-P",
    "-c",
    _PROGRAM,
    str(Path(p2p.__file__).parents[1]),
)
"""REPO, FD and options follow; see `p2p.writer.process`."""
