"""One accepted connection as bytes in and out: plain TCP, a Unix socket, or TLS.

The plain form goes to the socket directly and waits only when the kernel says it
would block, because a trio stream's bookkeeping costs more than a small request.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Protocol

import trio

RECEIVE_BYTES = 1 << 17
# Sent at once where only the whole shows that the client takes something: little
# enough that a thin link does not look like a client that has stopped reading.
TLS_SEND_BYTES = 1 << 16


class Link(Protocol):
    """Bytes to and from one client.

    Every method may raise OSError or trio.BrokenResourceError when it is gone.
    """

    peer: str

    async def start(self) -> None:
        """Do what comes before the first byte of HTTP."""

    async def receive(self) -> bytes:
        """Return what has come, after waiting for it; b"" at the end."""

    def send_now(self, data: bytes) -> int:
        """Send what can be sent without waiting; return how many bytes."""

    async def turn(self, size: int) -> int:
        """Wait until something may be sent; return how much of `size`."""

    async def send_some(self, data: memoryview) -> int:
        """Send something once the client takes it; return how many bytes."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""

    async def send_end(self) -> None:
        """Tell the client that nothing more will come."""

    def close(self) -> None:
        """Let go of the socket at once."""


class PlainLink:
    """A client on a TCP or Unix socket."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        """Take over a socket that does not block."""
        self._socket = sock
        self.peer = peer

    async def start(self) -> None:
        """Nothing comes before HTTP here."""

    async def receive(self) -> bytes:
        """Return what has come, after waiting for it; b"" at the end."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            with contextlib.suppress(BlockingIOError):
                return self._socket.recv(RECEIVE_BYTES)

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what can be sent without waiting; return how many bytes."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def turn(self, size: int) -> int:
        """Let all of it be sent."""
        return size

    async def send_some(self, data: memoryview) -> int:
        """Send something once the client takes it; return how many bytes."""
        await trio.lowlevel.wait_writable(self._socket)
        return self.send_now(data)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            view = view[await self.send_some(view) :]

    async def send_end(self) -> None:
        """Tell the client that nothing more will come."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the socket at once."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


class TLSLink:
    """A client whose bytes are protected by TLS."""

    def __init__(self, sock: socket.socket, peer: str, context: ssl.SSLContext) -> None:
        """Take over a socket; `context` is a server's."""
        self.peer = peer
        self._socket = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._stream = trio.SSLStream(
            self._socket, context, server_side=True, https_compatible=True
        )

    async def start(self) -> None:
        """Shake hands; a client certificate is asked for here."""
        await self._stream.do_handshake()

    async def receive(self) -> bytes:
        """Return what has come, after waiting for it; b"" at the end."""
        return bytes(await self._stream.receive_some(RECEIVE_BYTES))

    def send_now(self, data: bytes) -> int:  # noqa: ARG002 - TLS cannot promise it
        """Send nothing: TLS cannot promise not to wait."""
        return 0

    async def turn(self, size: int) -> int:
        """Let a record or a few be sent: `send_some` sends them all or none."""
        return min(size, TLS_SEND_BYTES)

    async def send_some(self, data: memoryview) -> int:
        """Send all of it."""
        await self._stream.send_all(data)
        return len(data)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self._stream.send_all(data)

    async def send_end(self) -> None:
        """Tell the client that nothing more will come."""
        await self._socket.send_eof()

    def close(self) -> None:
        """Let go of the socket at once."""
        self._socket.socket.close()
