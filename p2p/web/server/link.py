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

    async def send(self, data: bytes | memoryview) -> None:
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

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            await trio.lowlevel.wait_writable(self._socket)
            view = view[self.send_now(view) :]

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

    def send_now(self, data: bytes) -> int:  # noqa: ARG002  TLS cannot promise it
        """Send nothing: TLS cannot promise not to wait."""
        return 0

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it."""
        await self._stream.send_all(data)

    async def send_end(self) -> None:
        """Tell the client that nothing more will come."""
        await self._socket.send_eof()

    def close(self) -> None:
        """Let go of the socket at once."""
        self._socket.socket.close()
