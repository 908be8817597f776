"""Objects as peers get them: in canonical form, whole or a range, for reading only.

What is read whole is checked against its name, so that damage here is found here and
blamed on nobody else. All of it blocks on the disk: call it on a thread.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator

from p2p.errors import (
    DamagedObjectError,
    FormatError,
    IntegrityError,
    ObjectNotFoundError,
)
from p2p.ostree.content import ContentReader
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import ObjectName, ObjectType, checksum_of

# A large object of an archive repository is unpacked once and kept for the ranges
# that follow; two, because neighbours seldom want more at once.
KEPT_FILES = 2


class CanonicalReader:
    """Reads the objects of some holdings in canonical form; used by one thread."""

    def __init__(self, holdings: Holdings, *, scratch: str) -> None:
        """`scratch` is a directory where large packed objects are unpacked to."""
        self._holdings = holdings
        self._scratch = scratch
        self._unpacked: OrderedDict[ObjectName, int] = OrderedDict()

    def close(self) -> None:
        """Let go of unpacked files."""
        while self._unpacked:
            os.close(self._unpacked.popitem()[1])

    def size(self, name: ObjectName) -> int | None:
        """Return the length of the canonical form; None if it is not here."""
        try:
            if name.type is not ObjectType.FILE:
                return self._holdings.size(name)
            with self._holdings.open_content(name.checksum) as reader:
                return len(reader.header.frame()) + reader.size
        except (ObjectNotFoundError, FormatError):
            return None

    def read(self, name: ObjectName, limit: int) -> bytes | None:
        """Return a whole object; None if it is longer than `limit` bytes.

        Raises:
            ObjectNotFoundError: it is not here (any more).
            DamagedObjectError: what lies here is not that object.

        """
        if name.type is not ObjectType.FILE:
            data = self._holdings.load_metadata(name)
            return data if len(data) <= limit else None
        with self._open(name) as reader:
            if len(reader.header.frame()) + reader.size > limit:
                return None
            data = self._join(name, reader.canonical())
        if checksum_of(data) != name.checksum:
            raise DamagedObjectError(f"object {name} is damaged")
        return data

    def _open(self, name: ObjectName) -> ContentReader:
        try:
            return self._holdings.open_content(name.checksum)
        except (FormatError, IntegrityError) as error:
            raise DamagedObjectError(f"object {name} is damaged: {error}") from None

    @staticmethod
    def _join(name: ObjectName, pieces: Iterator[bytes]) -> bytes:
        try:
            return b"".join(pieces)
        except (FormatError, IntegrityError) as error:
            raise DamagedObjectError(f"object {name} is damaged: {error}") from None

    def read_range(self, name: ObjectName, offset: int, length: int) -> bytes:
        """Return a range of an object; shorter only at its end.

        Raises:
            ObjectNotFoundError: it is not here (any more).
            DamagedObjectError: it cannot be read to there.

        """
        if name.type is not ObjectType.FILE:
            return self._holdings.load_metadata(name)[offset : offset + length]
        with self._open(name) as reader:
            head = reader.header.frame()
            data = head[offset : offset + length]
            length -= len(data)
            if length <= 0:
                return data
            start = max(offset - len(head), 0)
            if reader.packed:
                return data + os.pread(self._unpack(name, reader), length, start)
            return data + reader.read_at(start, length)

    def _unpack(self, name: ObjectName, reader: ContentReader) -> int:
        """Return a file with the content of a packed object."""
        fd = self._unpacked.pop(name, None)
        if fd is None:
            fd = self._unpack_new(name, reader)
        self._unpacked[name] = fd
        while len(self._unpacked) > KEPT_FILES:
            os.close(self._unpacked.popitem(last=False)[1])
        return fd

    def _unpack_new(self, name: ObjectName, reader: ContentReader) -> int:
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            try:
                for piece in reader.content():
                    file.write(piece)
            except (FormatError, IntegrityError) as error:
                raise DamagedObjectError(f"object {name} is damaged: {error}") from None
            file.flush()
            return os.dup(file.fileno())
