"""Units of large objects while they arrive in any order: files of the agent's own.

The agent cannot write the repository, and the writer takes an object from its start
to its end. So units wait here; each was checked against its hash before.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

from p2p.ostree.disk import writing
from p2p.ostree.objects import ObjectName
from p2p.wire.limits import UNIT_BYTES

# What the writer gets at once: each call wakes another thread or process.
PIECE_BYTES = 4 * UNIT_BYTES


class Scratch:
    """Unfinished large objects; nothing of them outlives the process."""

    def __init__(self, directory: str) -> None:
        """Keep them in unnamed files of that directory's filesystem."""
        self._directory = directory
        self._files: dict[ObjectName, int] = {}
        self._sizes: dict[ObjectName, int] = {}

    def close(self) -> None:
        """Drop everything."""
        for name in list(self._files):
            self.discard(name)

    def begin(self, name: ObjectName, size: int) -> None:
        """Say how long an object is, before its first unit."""
        self._sizes[name] = size

    def write(self, name: ObjectName, unit: int, data: bytes) -> None:
        """Keep a unit.

        Raises:
            NoSpaceError, RepositoryError: the disk does not take it.

        """
        with writing(self._directory):
            self._write(name, unit, data)

    def _write(self, name: ObjectName, unit: int, data: bytes) -> None:
        fd = self._files.get(name)
        if fd is None:
            with tempfile.TemporaryFile(dir=self._directory) as file:
                fd = self._files[name] = os.dup(file.fileno())
        view = memoryview(data)
        offset = unit * UNIT_BYTES
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written

    def read(self, name: ObjectName, offset: int, length: int) -> bytes:
        """Return bytes of a unit that is here."""
        return os.pread(self._files[name], length, offset)

    def size(self, name: ObjectName) -> int:
        """Return how long an object is as a whole."""
        return self._sizes[name]

    def pieces(self, name: ObjectName) -> Iterator[bytes]:
        """Yield a complete object from its start to its end."""
        for offset in range(0, self._sizes[name], PIECE_BYTES):
            yield self.read(name, offset, PIECE_BYTES)

    def discard(self, name: ObjectName) -> None:
        """Forget an object."""
        self._sizes.pop(name, None)
        fd = self._files.pop(name, None)
        if fd is not None:
            os.close(fd)
