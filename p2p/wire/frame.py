"""Frames: control bodies and slices of bulk, cut out of a byte stream.

A frame begins with a 32-bit big-endian word: its kind in the upper 8 bits, the
length of its payload in the lower 24. A slice's request id, 32 bits, stands between
the word and the payload.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from p2p.wire.limits import MAX_CONTROL_BYTES, MAX_SLICE_BYTES
from p2p.wire.rule import RuleError

CONTROL = 0
BULK = 1

_WORD = Struct(">I")
_SLICE = Struct(">II")
_NOTHING = memoryview(b"")
_LIMITS = {CONTROL: MAX_CONTROL_BYTES, BULK: MAX_SLICE_BYTES}


def control_frame(body: bytes) -> bytes:
    """Return the frame of a control body."""
    return _WORD.pack(CONTROL << 24 | len(body)) + body


def slice_header(request: int, size: int) -> bytes:
    """Return what stands before `size` bytes of bulk."""
    return _SLICE.pack(BULK << 24 | size, request)


class Portion(NamedTuple):
    """Bulk bytes of a request as they came in: a slice, or a part of one."""

    request: int
    data: memoryview


class FrameReader:
    """Cuts what it is fed into control bodies and portions of bulk.

    It keeps at most one incomplete header or control body; bulk passes through.
    """

    __slots__ = ("_body_left", "_data", "_partial", "_position", "_slice")

    def __init__(self) -> None:
        self._data = _NOTHING
        self._position = 0
        self._partial = bytearray()
        self._body_left = 0
        self._slice: tuple[int, int] | None = None  # request (0: not read), bytes left

    @property
    def is_drained(self) -> bool:
        """Tell whether all that was fed has been looked at."""
        return self._position == len(self._data)

    @property
    def slice_left(self) -> int:
        """How many bytes are missing of a slice that has begun."""
        return 0 if self._slice is None else self._slice[1]

    def feed(self, data: bytes) -> None:
        """Add bytes; all that was fed before must have been taken out."""
        self._data = memoryview(data)
        self._position = 0

    def next(self) -> bytes | Portion | None:
        """Return the next control body or portion; None when more bytes are needed.

        Raises:
            RuleError: no frame begins like this.

        """
        frame = self._next()
        if frame is None:
            self._data = _NOTHING  # an idle session keeps no buffer alive
            self._position = 0
        return frame

    def _next(self) -> bytes | Portion | None:
        while True:
            if self._slice is not None:
                return self._next_portion(*self._slice)
            if self._body_left:
                body = self._take(self._body_left)
                if body is not None:
                    self._body_left = 0
                return body
            word = self._take(_WORD.size)
            if word is None:
                return None
            self._begin(*_WORD.unpack(word))

    def _begin(self, word: int) -> None:
        kind, size = word >> 24, word & 0xFFFFFF
        limit = _LIMITS.get(kind)
        if limit is None or not 1 <= size <= limit:
            raise RuleError(f"frame of kind {kind} with {size} bytes")
        if kind == CONTROL:
            self._body_left = size
        else:
            self._slice = (0, size)

    def _next_portion(self, request: int, left: int) -> Portion | None:
        if not request:
            field = self._take(_WORD.size)
            if field is None:
                return None
            (request,) = _WORD.unpack(field)
            if not request:
                raise RuleError("bulk for request 0")
            self._slice = (request, left)
        portion = self._data[self._position : self._position + left]
        if not portion:
            return None
        self._position += len(portion)
        left -= len(portion)
        self._slice = (request, left) if left else None
        return Portion(request, portion)

    def _take(self, size: int) -> bytes | None:
        """Return exactly so many bytes; None, and keep what there is, if fewer came."""
        end = self._position + size - len(self._partial)
        piece = self._data[self._position : end]
        self._position += len(piece)
        if not self._partial and len(piece) == size:
            return bytes(piece)
        self._partial += piece
        if len(self._partial) < size:
            return None
        taken = bytes(self._partial)
        self._partial.clear()
        return taken
