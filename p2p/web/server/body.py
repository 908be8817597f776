"""A request's body on its way in: at the reader's pace, bounded in size and time."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Protocol

import trio

from p2p.web.server.exchange import ClientGoneError, RefusedError, too_large
from p2p.web.server.limits import Limits

# An unread body up to this size is read and dropped so that the connection lives on.
_DRAIN_BYTES = 1 << 20
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Client(Protocol):
    """The connection that a body comes from."""

    limits: Limits
    deadline: float
    """When it is given up, on trio's clock."""

    async def receive(self) -> bytes:
        """Return what has come, after waiting for it; b"" at the end."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""


class Framing(Protocol):
    """Finds where in what the client sends the body is."""

    complete: bool
    """Whether all of the body has been taken."""

    def take(self) -> bytes:
        """Return the body's next bytes, b"" if more must come; RefusedError."""

    def feed(self, data: bytes) -> None:
        """Take in what has come; b"" says that nothing more will."""

    def left_over(self) -> bytes:
        """Return what came behind the body."""


class CountedFraming:
    """A body of a known length."""

    def __init__(self, data: bytes, length: int) -> None:
        """Begin with what has come together with the head."""
        self.complete = length == 0
        self._data = data
        self._left = length

    def take(self) -> bytes:
        """Return the body's next bytes, b"" if more must come."""
        piece, self._data = self._data[: self._left], self._data[self._left :]
        self._left -= len(piece)
        self.complete = self._left == 0
        return piece

    def feed(self, data: bytes) -> None:
        """Take in what has come; RefusedError if nothing has and more is due."""
        if not data:
            raise RefusedError(400, "bad_request", "The body ends too early.")
        self._data += data

    def left_over(self) -> bytes:
        """Return what came behind the body."""
        return self._data


class IncomingBody:
    """A body as an iterator of pieces; see `p2p.web.server.exchange.Body`.

    Attributes:
        persistent: whether another request may follow when this body has been read.

    """

    def __init__(
        self,
        client: Client,
        framing: Framing,
        length: int | None,
        *,
        persistent: bool,
        expects: bool = False,
    ) -> None:
        """`expects` says that the client waits to be told to go on."""
        if length is not None and length > client.limits.body_bytes:
            raise too_large(client.limits.body_bytes)
        self.length = length
        self.received_bytes = 0
        self.persistent = persistent
        self._client = client
        self._framing = framing
        self._expects = expects
        self._grace_ends: float | None = None

    @property
    def complete(self) -> bool:
        """Whether all of it has been read."""
        return self._framing.complete

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body piece by piece."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece; RefusedError when the body is malformed."""
        while not self.complete:
            piece = self._framing.take()
            if piece:
                self.received_bytes += len(piece)
                if self.received_bytes > self._client.limits.body_bytes:
                    raise too_large(self._client.limits.body_bytes)
                return piece
            if not self.complete:
                await self._wait_for_more()
        raise StopAsyncIteration

    async def _wait_for_more(self) -> None:
        client, limits = self._client, self._client.limits
        now = trio.current_time()
        if self._grace_ends is None:
            self._grace_ends = now + limits.stall_seconds
        slowest = self.received_bytes / limits.slowest_bytes_per_second
        client.deadline = min(now + limits.stall_seconds, self._grace_ends + slowest)
        try:
            if self._expects:
                self._expects = False
                await client.send(_CONTINUE)
            data = await client.receive()
        except (OSError, trio.BrokenResourceError) as error:
            raise ClientGoneError(str(error)) from error
        client.deadline = math.inf
        self._framing.feed(data)

    async def skip_rest(self) -> bool:
        """Drop what nobody read, if it is little; tell if the connection may live."""
        if self.complete:
            return self.persistent
        if self._expects or self.length is None:
            return False
        if self.length - self.received_bytes > _DRAIN_BYTES:
            return False
        try:
            async for _ in self:
                pass
        except RefusedError:
            return False
        return self.persistent

    def left_over(self) -> bytes:
        """Return what the client sent behind this body."""
        return self._framing.left_over()
