"""A scratch directory below a repository's `tmp/`, told from dead ones by a lock.

Stock `ostree` removes from `tmp/` what is older than `core.tmp-expiry-secs`; what a
process left that died goes when the next one of its kind starts.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading

from p2p.errors import LockedError
from p2p.ostree.lock import open_lock


class Room:
    """Names for temporary files of one process; thread-safe.

    Errors are the disk's own, as OSError.
    """

    def __init__(self, root: str, prefix: str) -> None:
        """Make a directory below `root`, and clear away those of dead processes."""
        self._root = root
        self._prefix = prefix
        self._numbers = itertools.count()
        self._renewal = threading.Lock()
        os.makedirs(root, 0o775, exist_ok=True)
        _clear_abandoned(root, prefix)
        self._directory, self._lock = _make(root, prefix)

    def new_path(self) -> str:
        """Return a name that no file has."""
        return f"{self._directory}/{next(self._numbers)}"

    def renew(self) -> None:
        """Make the directory again if it is gone.

        A process that was idle for long is taken for dead by `ostree`; whoever cannot
        make a file calls this and tries once more.
        """
        with self._renewal:
            if not os.path.isdir(self._directory):
                os.close(self._lock)
                self._directory, self._lock = _make(self._root, self._prefix)

    def close(self) -> None:
        """Remove the directory with all that is in it."""
        shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._lock)


def _make(root: str, prefix: str) -> tuple[str, int]:
    """Return a new directory and the lock that says it is in use."""
    while True:
        directory = tempfile.mkdtemp(prefix=prefix, dir=root)
        path = os.path.join(directory, ".lock")
        try:
            fd = open_lock(path, exclusive=True, timeout_seconds=0)
        except (LockedError, FileNotFoundError):
            # Another process took it for abandoned just now.
            continue
        if os.path.exists(path):
            return directory, fd
        os.close(fd)


def _clear_abandoned(root: str, prefix: str) -> None:
    for entry in os.scandir(root):
        if not entry.name.startswith(prefix):
            continue
        try:
            fd = open_lock(f"{entry.path}/.lock", exclusive=True, timeout_seconds=0)
        except (LockedError, FileNotFoundError):
            continue
        shutil.rmtree(entry.path, ignore_errors=True)
        os.close(fd)
