"""The `.filez` form of archive repositories, to and from canonical form; pure.

A `.filez` is a framed header with the content's size, then raw deflate. Neither its
bytes nor its size are covered by the object's checksum, so reading it checks that
the stream ends where the data ends and that the size is true, and never inflates
more than the header promised.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from p2p.errors import FormatError, IntegrityError, LimitError
from p2p.ostree.inflate import BROKEN, WBITS, inflater
from p2p.ostree.objects import (
    FRAME_BYTES,
    FileHeader,
    frame_header,
    parse_frame,
    split_filez_header,
)

# `archive.zlib-level` of libostree's repository configuration.
DEFAULT_LEVEL = 6
STEP_BYTES = 1 << 18
"""Inflated output handed on at once."""


class FilezReader:
    """Turns the bytes of a `.filez`, fed piece by piece, into canonical form.

    Attributes:
        header: the file's header once it is complete, else None.
        size: the content's size as the header claims it, in bytes.

    """

    __slots__ = ("_buffer", "_inflater", "_left", "_limit", "header", "size")

    def __init__(self, *, limit: int) -> None:
        """Refuse content larger than `limit` bytes."""
        self.header: FileHeader | None = None
        self.size = 0
        self._limit = limit
        self._buffer = b""
        self._left = 0
        self._inflater = inflater()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the canonical bytes that more `.filez` bytes complete.

        Raises FormatError, LimitError or IntegrityError as soon as it is certain
        that the file is not what its header says.
        """
        if self.header is None:
            self._buffer += data
            frame = self._take_header()
            if frame is None:
                return
            yield frame
            data, self._buffer = self._buffer, b""
        yield from self._inflate(data)

    def _take_header(self) -> bytes | None:
        if len(self._buffer) < FRAME_BYTES:
            return None
        end = FRAME_BYTES + parse_frame(self._buffer)
        if len(self._buffer) < end:
            return None
        header, self.size, canonical = split_filez_header(self._buffer[FRAME_BYTES:end])
        self.header = header
        if self.size > self._limit:
            raise LimitError(
                f"file object claims {self.size} bytes, more than {self._limit}"
            )
        self._left = self.size
        self._buffer = self._buffer[end:]
        return frame_header(canonical)

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        if data and self.header is not None and self.header.is_symlink:
            raise FormatError("file object: symbolic link with content")
        stream = self._inflater
        while data and not stream.eof:
            # One byte more than is left shows a stream that is too long.
            piece = self._step(data, min(self._left + 1, STEP_BYTES))
            self._left -= len(piece)
            if self._left < 0:
                raise self._size_error("more")
            if piece:
                yield piece
            data = stream.unconsumed_tail
        if stream.eof and (stream.unused_data or data):
            raise FormatError("file object: bytes after the end of the deflate stream")

    def _step(self, data: bytes, limit: int) -> bytes:
        try:
            return self._inflater.decompress(data, limit)
        except BROKEN as error:
            raise FormatError(
                f"file object: deflate stream is broken: {error}"
            ) from None

    def finish(self) -> None:
        """Raise unless everything promised has come: header, size, stream's end."""
        if self.header is None:
            raise FormatError("file object: ends within its header")
        if self.header.is_symlink:
            return
        if not self._inflater.eof:
            raise FormatError("file object: ends within its deflate stream")
        if self._left:
            raise self._size_error("fewer")

    def _size_error(self, more_or_fewer: str) -> IntegrityError:
        return IntegrityError(
            "file object's size",
            expected=f"{self.size} bytes as its header says",
            got=more_or_fewer,
        )


def to_canonical(data: bytes, *, limit: int) -> bytes:
    """Return the canonical form of a whole `.filez` of at most `limit` bytes."""
    canonical = _short_to_canonical(data, limit)
    if canonical is None:
        reader = FilezReader(limit=limit)
        canonical = b"".join(reader.feed(data))
        reader.finish()
    return canonical


def _short_to_canonical(data: bytes, limit: int) -> bytes | None:
    """Do the same in one step for a short file; None if it is none, or is wrong."""
    if len(data) < FRAME_BYTES:
        return None
    end = FRAME_BYTES + parse_frame(data)
    if end > len(data):
        return None
    header, size, canonical = split_filez_header(data[FRAME_BYTES:end])
    if header.is_symlink or size > min(limit, STEP_BYTES):
        return None
    stream = inflater()
    try:
        # One byte more than there should be shows a stream that is too long.
        content = stream.decompress(data[end:], size + 1)
    except BROKEN:
        return None
    if len(content) != size or not stream.eof or stream.unused_data:
        return None
    return frame_header(canonical) + content


def from_content(
    header: FileHeader, size: int, content: Iterable[bytes], *, level: int
) -> Iterator[bytes]:
    """Yield a `.filez` with this header; `size` is the content's length in bytes."""
    yield header.serialize_filez(size)
    if header.is_symlink:
        return
    deflater = zlib.compressobj(level, zlib.DEFLATED, WBITS)
    for piece in content:
        compressed = deflater.compress(piece)
        if compressed:
            yield compressed
    yield deflater.flush()
