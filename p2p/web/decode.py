"""What a file of an origin passes through before anyone uses it; pure.

Each decoder checks that the bytes are the object that was asked for: only here is it
known which mirror a damaged one came from. The writer checks again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from p2p.errors import IntegrityError
from p2p.ostree.filez import FilezReader
from p2p.ostree.messages import Form
from p2p.ostree.objects import ObjectName, ObjectType


class MetadataDecoder:
    """A commit, dirtree or dirmeta: its file's bytes as they are."""

    __slots__ = ("_hash", "_name")

    size: int | None = None

    def __init__(self, name: ObjectName) -> None:
        self._name = name
        self._hash = hashlib.sha256()

    def feed(self, data: bytes, /) -> Iterator[bytes]:
        """Yield the bytes."""
        self._hash.update(data)
        return iter((data,))

    def finish(self) -> None:
        """Raise IntegrityError unless the object's checksum came out."""
        _check(self._name, self._hash.hexdigest())


class FileDecoder:
    """A `.filez`, turned into canonical form."""

    __slots__ = ("_hash", "_name", "_reader")

    def __init__(self, name: ObjectName, *, limit: int) -> None:
        self._name = name
        self._hash = hashlib.sha256()
        self._reader = FilezReader(limit=limit)

    @property
    def size(self) -> int | None:
        """Length of the canonical form as the header claims it, once that is here."""
        header = self._reader.header
        if header is None:
            return None
        return len(header.frame()) + self._reader.size

    def feed(self, data: bytes, /) -> Iterator[bytes]:
        """Yield canonical bytes; raise FormatError, LimitError or IntegrityError."""
        update = self._hash.update
        for piece in self._reader.feed(data):
            update(piece)
            yield piece

    def finish(self) -> None:
        """Raise unless the file is complete and the object's checksum came out."""
        self._reader.finish()
        _check(self._name, self._hash.hexdigest())


class FilezDecoder(FileDecoder):
    """A `.filez`, checked as its canonical form but handed on as it is."""

    __slots__ = ()

    @property
    def size(self) -> int | None:
        """Not known: the header tells the length before compression."""
        return None

    def feed(self, data: bytes, /) -> Iterator[bytes]:
        """Yield the bytes; raise FormatError, LimitError or IntegrityError."""
        for _ in super().feed(data):
            pass
        yield data


def _check(name: ObjectName, got: str) -> None:
    if got != name.checksum:
        raise IntegrityError(f"object {name}", expected=name.checksum, got=got)


ObjectDecoder = MetadataDecoder | FileDecoder


def new_decoder(name: ObjectName, form: Form, *, limit: int) -> ObjectDecoder:
    """Return the decoder for an object; content of a file is at most `limit` bytes."""
    if name.type is not ObjectType.FILE:
        return MetadataDecoder(name)
    if form is Form.FILEZ:
        return FilezDecoder(name, limit=limit)
    return FileDecoder(name, limit=limit)
