"""Takes in the body of one transfer: decodes it and cuts it into pieces; pure.

An intake outlives its transfer: when a connection breaks and the server can go on
where it stopped, the next transfer feeds the same intake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

PIECE_BYTES = 1 << 18
"""Longest piece handed on; a body no longer than this comes as one."""


class Decoder(Protocol):
    """Turns a body's bytes into what the asker wants as they come, and checks it."""

    def feed(self, data: bytes, /) -> Iterator[bytes]:
        """Yield what these bytes complete; raise an Error if they are wrong."""
        ...

    def finish(self) -> None:
        """Raise an Error unless the body may end here and was what it should be."""
        ...


class Codec(Protocol):
    """How bodies are decoded; called on the fetching thread."""

    def whole(self, data: bytes, /) -> bytes | None:
        """Decode a short body at once; None if the result is longer than one piece.

        Raises an Error if the body is wrong.
        """
        ...

    def decoder(self) -> Decoder:
        """Return what a longer body passes through."""
        ...


class Intake:
    """Body bytes in, pieces of at most PIECE_BYTES out.

    Attributes:
        received: bytes of the body so far, before decoding.

    """

    __slots__ = ("_decoder", "_held", "_held_bytes", "_pending", "received")

    def __init__(self, decoder: Decoder | None) -> None:
        self.received = 0
        self._decoder = decoder
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._pending: Iterator[bytes] | None = None

    @property
    def busy(self) -> bool:
        """Tell whether earlier bytes must be pumped out before more are taken."""
        return self._pending is not None

    def take(self, data: bytes) -> None:
        """Accept more bytes of the body; `pump` hands on what they complete."""
        self.received += len(data)
        if self._decoder is None:
            self._pending = iter((data,))
        else:
            self._pending = self._decoder.feed(data)

    def pump(self, put: Callable[[bytes], bool]) -> bool:
        """Hand full pieces to `put` until it returns False; tell if all is out.

        What is decoded and not handed on stays undecoded, so memory is bounded even
        where a few bytes inflate to millions.
        """
        if self._pending is None:
            return True
        for data in self._pending:
            if not self._hold(data, put):
                return False
        self._pending = None
        return True

    def _hold(self, data: bytes, put: Callable[[bytes], bool]) -> bool:
        more = True
        # A full piece is kept until something follows: it may be the last.
        while self._held_bytes + len(data) > PIECE_BYTES:
            room = PIECE_BYTES - self._held_bytes
            self._held.append(data[:room])
            data = data[room:]
            more = put(self._take_held())
        if data:
            self._held.append(data)
            self._held_bytes += len(data)
        return more

    def _take_held(self) -> bytes:
        data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held = []
        self._held_bytes = 0
        return data

    def finish(self) -> bytes:
        """Return the last piece; raise the decoder's error if the body is wrong."""
        if self._decoder is not None:
            self._decoder.finish()
        return self._take_held()
