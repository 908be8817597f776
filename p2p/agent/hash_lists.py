"""Hashes of the units of whole objects, so that each is read for them only once.

An object is read through for its list. One that a single page describes is checked
against its checksum meanwhile: who signed a list of a damaged object would be taken
for a liar. A larger one is read page by page, because others wait for the disk.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from p2p.errors import DamagedObjectError, ObjectNotFoundError
from p2p.ostree.canonical import CanonicalReader
from p2p.ostree.objects import ObjectName
from p2p.wire.hashes import unit_count
from p2p.wire.limits import MAX_PAGE_HASHES, UNIT_BYTES

# 2 MiB: lists of objects of 16 GiB together.
MAX_KEPT_HASHES = 1 << 16
_DIGEST_BYTES = 32


class HashLists:
    """The hashes that were computed last, or learned."""

    def __init__(self, reader: CanonicalReader) -> None:
        """Read objects with `reader`, on the thread that asks for a page."""
        self._reader = reader
        self._lock = threading.Lock()
        # By object and first unit.
        self._kept: OrderedDict[tuple[ObjectName, int], bytes] = OrderedDict()
        self._count = 0

    def learn(self, name: ObjectName, hashes: bytes) -> None:
        """Keep the whole list of an object that is here and has its checksum."""
        step = MAX_PAGE_HASHES * _DIGEST_BYTES
        for start in range(0, len(hashes), step):
            first = start // _DIGEST_BYTES
            self._keep(name, first, hashes[start : start + step])

    def page(self, name: ObjectName, first: int, count: int) -> tuple[int, bytes]:
        """Return an object's size and the hashes of at most `count` of its units.

        None of them if it has no such unit. Blocks on the disk.

        Raises:
            ObjectNotFoundError: the object is not here (any more).
            DamagedObjectError: what lies here is not that object.

        """
        size = self._reader.size(name)
        if size is None:
            raise ObjectNotFoundError(f"object {name} is not here")
        if first >= unit_count(size):
            return size, b""
        start = first // MAX_PAGE_HASHES * MAX_PAGE_HASHES
        hashes = self._find(name, start)
        if hashes is None:
            hashes = self._compute(name, size, start)
            self._keep(name, start, hashes)
        skip = (first - start) * _DIGEST_BYTES
        return size, hashes[skip : skip + count * _DIGEST_BYTES]

    def _compute(self, name: ObjectName, size: int, first: int) -> bytes:
        starts = range(first * UNIT_BYTES, size, UNIT_BYTES)[:MAX_PAGE_HASHES]
        is_whole = first == 0 and unit_count(size) <= MAX_PAGE_HASHES
        whole = hashlib.sha256()
        hashes = bytearray()
        for start in starts:
            unit = self._reader.read_range(name, start, UNIT_BYTES)
            hashes += hashlib.sha256(unit).digest()
            if is_whole:
                whole.update(unit)
        if is_whole and whole.hexdigest() != name.checksum:
            raise DamagedObjectError(f"object {name} is damaged")
        return bytes(hashes)

    def _find(self, name: ObjectName, first: int) -> bytes | None:
        with self._lock:
            hashes = self._kept.get((name, first))
            if hashes is not None:
                self._kept.move_to_end((name, first))
        return hashes

    def _keep(self, name: ObjectName, first: int, hashes: bytes) -> None:
        with self._lock:
            self._count += len(hashes) // _DIGEST_BYTES
            self._count -= len(self._kept.pop((name, first), b"")) // _DIGEST_BYTES
            self._kept[name, first] = hashes
            while self._count > MAX_KEPT_HASHES:
                _, oldest = self._kept.popitem(last=False)
                self._count -= len(oldest) // _DIGEST_BYTES
