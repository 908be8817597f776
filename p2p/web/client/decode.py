"""What a file of an origin passes through before anyone uses it; pure.

Each decoder checks that the bytes are the object that was asked for: only here is it
known which mirror a damaged one came from. The writer checks again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from p2p.errors import IntegrityError, LimitError
from p2p.ostree.filez import FilezReader, to_canonical
from p2p.ostree.messages import Form
from p2p.ostree.objects import ObjectName, ObjectType
from p2p.web.client.intake import PIECE_BYTES

_SHORT_BYTES = PIECE_BYTES  # of content; with its header it may still be too long


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


class ObjectCodec:
    """How the file of one object is decoded."""

    __slots__ = ("_decoder", "_form", "_limit", "_name")

    def __init__(self, name: ObjectName, form: Form, *, limit: int) -> None:
        """Content of a file is at most `limit` bytes."""
        self._name = name
        self._form = form
        self._limit = limit
        self._decoder: MetadataDecoder | FileDecoder | None = None

    def whole(self, data: bytes, /) -> bytes | None:
        """Return the object in the form asked for; None if it is not a short one.

        Raises FormatError, LimitError or IntegrityError.
        """
        if self._name.type is not ObjectType.FILE:
            _check(self._name, hashlib.sha256(data).hexdigest())
            return data
        try:
            canonical = to_canonical(data, limit=min(self._limit, _SHORT_BYTES))
        except LimitError:
            return None  # whether it is too long altogether the decoder says
        _check(self._name, hashlib.sha256(canonical).hexdigest())
        if self._form is Form.FILEZ:
            return data
        return canonical if len(canonical) <= PIECE_BYTES else None

    def decoder(self) -> MetadataDecoder | FileDecoder:
        """Return what a longer file passes through."""
        if self._name.type is not ObjectType.FILE:
            self._decoder = MetadataDecoder(self._name)
        elif self._form is Form.FILEZ:
            self._decoder = FilezDecoder(self._name, limit=self._limit)
        else:
            self._decoder = FileDecoder(self._name, limit=self._limit)
        return self._decoder

    @property
    def size(self) -> int | None:
        """Length of the object in bytes, where it is long and its header tells it."""
        return self._decoder.size if self._decoder is not None else None
