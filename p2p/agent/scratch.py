"""Large objects while their units arrive in any order: files of the agent's own.

The agent cannot write the repository, and the writer takes an object from its start
to its end. So units wait here; each was checked before against a hash from a signed
list, which is kept beside them. Meanwhile neighbours are given both.

One task changes what is here. Threads read it: they look under a lock and read a
descriptor of their own, so that what is dropped meanwhile is still what they took.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from p2p.agent.hash_lists import HashLists
from p2p.ostree.disk import writing
from p2p.ostree.objects import ObjectName
from p2p.wire.hashes import unit_count
from p2p.wire.limits import UNIT_BYTES

# What the writer gets at once: each call wakes another thread or process.
PIECE_BYTES = 4 * UNIT_BYTES
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Page:
    """Hashes of consecutive units, with the signature of whoever made the list."""

    size: int
    first: int
    hashes: bytes
    signer: bytes
    signature: bytes

    @property
    def count(self) -> int:
        """How many hashes it has."""
        return len(self.hashes) // _DIGEST_BYTES


@dataclass(slots=True)
class _Arriving:
    """One object; the bitmap of its units is as the protocol has it."""

    size: int
    fd: int = -1
    bitmap: bytearray = field(default_factory=bytearray)
    hashes: bytearray = field(default_factory=bytearray)
    pages: dict[int, Page] = field(default_factory=dict)
    is_right: bool = False

    def has(self, first: int, last: int) -> bool:
        return all(
            self.bitmap[unit >> 3] & 128 >> (unit & 7)
            for unit in range(first, last + 1)
        )


class Scratch:
    """Unfinished large objects; nothing of them outlives the process."""

    def __init__(self, directory: str, lists: HashLists | None = None) -> None:
        """Keep them in unnamed files of that directory's filesystem.

        `lists` gets the hashes of the objects that turned out to be right.
        """
        self._directory = directory
        self._lists = lists
        self._lock = threading.Lock()
        self._objects: dict[ObjectName, _Arriving] = {}

    # -- what arrives --------------------------------------------------------------

    def add_page(self, name: ObjectName, page: Page) -> None:
        """Check units against this page; the first one begins a new list."""
        with self._lock:
            if page.first == 0:
                self._drop(name)
                bitmap = bytearray(-(-unit_count(page.size) // 8))
                self._objects[name] = _Arriving(page.size, bitmap=bitmap)
            arriving = self._objects[name]
            arriving.pages[page.first] = page
            arriving.hashes += page.hashes

    def digest(self, name: ObjectName, unit: int) -> bytes | None:
        """Return what a unit must hash to; None if that is not known."""
        arriving = self._objects.get(name)
        if arriving is None:
            return None
        start = unit * _DIGEST_BYTES
        return bytes(arriving.hashes[start : start + _DIGEST_BYTES]) or None

    def write(self, name: ObjectName, unit: int, data: bytes) -> None:
        """Keep a unit that has its digest.

        Raises:
            NoSpaceError, RepositoryError: the disk does not take it.

        """
        arriving = self._objects[name]
        with writing(self._directory):
            if arriving.fd < 0:
                arriving.fd = self._make_file()
            view = memoryview(data)
            offset = unit * UNIT_BYTES
            while view:
                written = os.pwrite(arriving.fd, view, offset)
                view, offset = view[written:], offset + written
        with self._lock:
            arriving.bitmap[unit >> 3] |= 128 >> (unit & 7)

    def _make_file(self) -> int:
        with tempfile.TemporaryFile(dir=self._directory) as file:
            return os.dup(file.fileno())

    # -- the end -------------------------------------------------------------------

    def size(self, name: ObjectName) -> int:
        """Return how long an object is as a whole."""
        return self._objects[name].size

    def pieces(self, name: ObjectName) -> Iterator[bytes]:
        """Yield a complete object from its start to its end."""
        for offset in range(0, self.size(name), PIECE_BYTES):
            yield os.pread(self._objects[name].fd, PIECE_BYTES, offset)

    def confirm(self, name: ObjectName) -> None:
        """Note that the object made of these units has its checksum."""
        arriving = self._objects.get(name)
        if arriving is not None:
            arriving.is_right = True

    def discard(self, name: ObjectName) -> None:
        """Forget an object that is elsewhere now, not wanted or not right."""
        with self._lock:
            self._drop(name)

    def clear(self) -> tuple[ObjectName, ...]:
        """Forget all objects; return them."""
        with self._lock:
            names = tuple(self._objects)
            for name in names:
                self._drop(name)
        return names

    def _drop(self, name: ObjectName) -> None:
        arriving = self._objects.pop(name, None)
        if arriving is None:
            return
        if arriving.fd >= 0:
            os.close(arriving.fd)
        if arriving.is_right and self._lists is not None:
            self._lists.learn(name, bytes(arriving.hashes))

    # -- for neighbours, on any thread ----------------------------------------------

    def names(self) -> tuple[ObjectName, ...]:
        """Return the objects that are arriving."""
        with self._lock:
            return tuple(self._objects)

    def bitmap(self, name: ObjectName) -> bytes:
        """Return which units are here, as UNITS says it."""
        with self._lock:
            arriving = self._objects.get(name)
            found = b"" if arriving is None else bytes(arriving.bitmap)
        return found.rstrip(b"\0") or b"\0"

    def page(self, name: ObjectName, first: int, count: int) -> Page | None:
        """Return the page that starts there, if it is kept and not longer."""
        with self._lock:
            arriving = self._objects.get(name)
            page = None if arriving is None else arriving.pages.get(first)
        return page if page is not None and page.count <= count else None

    def read(self, name: ObjectName, offset: int, length: int) -> bytes | None:
        """Return a range, shorter only at the object's end; None if it is not here.

        Raises:
            OSError: as the disk says.

        """
        with self._lock:
            arriving = self._objects.get(name)
            if arriving is None:
                return None
            end = min(offset + length, arriving.size)
            if offset >= end:
                return b""
            if not arriving.has(offset // UNIT_BYTES, (end - 1) // UNIT_BYTES):
                return None
            fd = os.dup(arriving.fd)
        try:
            return os.pread(fd, end - offset, offset)
        finally:
            os.close(fd)
