"""One TLS session over a TCP connection, as a `Transport`.

Theory of operation. OpenSSL works on two memory buffers: what came from the socket
goes into one, what it wants to send is taken from the other. After the handshake
only the sending side touches the second: what OpenSSL answers by itself (to a key
update) may wait for the next data (RFC 8446 §4.6.3), so receiving never sends, and
cancelling it costs nothing.

trio.SSLStream is not used: it drops the alert that tells a refused peer why, knows
no half close, and moves two thirds of the bytes in a second of CPU.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from p2p.errors import TransportClosedError, TransportError
from p2p.net.failure import socket_failure, tls_failure
from p2p.net.traffic import Download
from p2p.net.transport import OneTask, Transport, closed_here, torn

RECEIVE_BYTES: Final = 1 << 18
# What is encrypted before it is sent: sixteen records of TLS.
SLICE_BYTES: Final = 1 << 18
# How long last words may take to be read.
LINGER_SECONDS: Final = 1.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class TLSStream(Transport):
    """TLS over a connected socket; see `Transport` for what it promises."""

    def __init__(
        self,
        sock: trio.SocketStream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        download: Download | None = None,
    ) -> None:
        """Take over the socket; `handshake` comes before everything else.

        Nothing is read faster than `download` allows.
        """
        self._socket = sock
        self._download = download or Download()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side
        )
        self._sender = OneTask("sending")
        self._receiver = OneTask("receiving")
        self._waiting = trio.CancelScope()
        self._failure: TransportError | None = None
        self._sent_end = False
        self._kept = bytearray()

    async def handshake(self) -> None:
        """Agree on keys and exchange certificates.

        A client is through before the server has judged its certificate; what the
        server thinks of it comes with the first receive.

        Raises:
            ConnectError: one of the two does not accept the other.
            TransportError: the connection broke.

        """
        try:
            while not self._handshake_step():
                await self._flush()
                await self._feed()
            await self._flush()
        except ssl.SSLError as error:
            self._failure = tls_failure(error)
            await self._part(self._flush)  # the alert that tells the peer why
            raise self._failure from error

    def peer_certificate(self) -> bytes:
        """Return the peer's certificate in DER; the handshake has checked it."""
        return self._tls.getpeercert(binary_form=True) or b""

    def protocol(self) -> str | None:
        """Return the protocol both sides chose by ALPN."""
        return self._tls.selected_alpn_protocol()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; see `Transport`."""
        with self._sender:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check()
            if self._sent_end:
                raise TransportClosedError("this side has said that nothing follows")
            view = memoryview(data)
            while view:
                view = view[self._tls.write(view[:SLICE_BYTES]) :]
                await self._flush()

    async def send_eof(self) -> None:
        """Send TLS's close_notify, which ends one direction; see `Transport`."""
        with self._sender:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check()
            await self._say_end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come; see `Transport`."""
        with self._receiver:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check()
            size = RECEIVE_BYTES if max_bytes is None else max_bytes
            try:
                while (data := self._read(size)) is None:
                    await self._feed()
            except ssl.SSLError as error:
                self._failure = tls_failure(error)
                raise self._failure from error
            return data

    async def aclose(self) -> None:
        """Send the end, wait until the peer has it, close; see `Transport`."""
        if self._failure is not None or self._sender.busy:
            self.abort()
            await trio.lowlevel.checkpoint()
            return
        self._failure = closed_here()
        self._waiting.cancel()
        await self._part(self._say_end)

    def abort(self) -> None:
        """Close the socket at once, with a reset; see `Transport`."""
        if self._failure is None:
            self._failure = closed_here()
        sock = self._socket.socket
        if sock.fileno() == -1:
            return
        with contextlib.suppress(OSError):  # the peer's reset came first
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sock.close()

    # -- between OpenSSL and the socket ------------------------------------------

    def _handshake_step(self) -> bool:
        """Let OpenSSL go on; whether the handshake is complete."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _read(self, size: int) -> bytes | None:
        """Return what is decrypted, b"" at the end, None while bytes are missing."""
        if self._kept:
            kept = bytes(self._kept[:size])
            del self._kept[:size]
            return kept
        pieces = []
        try:
            while size > 0 and (piece := self._tls.read(size)):
                pieces.append(piece)
                size -= len(piece)
        except ssl.SSLWantReadError:
            return b"".join(pieces) if pieces else None
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            if not pieces:
                raise
            self._failure = tls_failure(error)
        return b"".join(pieces)

    async def _feed(self) -> None:
        """Wait for bytes from the socket and hand them to OpenSSL."""
        with trio.CancelScope() as self._waiting:
            try:
                size = await self._download.turn(RECEIVE_BYTES)
                data = await self._socket.receive_some(size)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._fail(socket_failure(error)) from error
            if data:
                self._download.count(len(data))
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
            return
        self._check()

    async def _flush(self) -> None:
        """Send what OpenSSL has made; if cancelled, the session is torn."""
        data = self._outgoing.read()
        if not data:
            return
        try:
            await self._socket.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._fail(socket_failure(error)) from error
        except BaseException:
            self._fail(torn())
            raise

    async def _say_end(self) -> None:
        if self._sent_end:
            return
        self._sent_end = True
        # OpenSSL's shutdown looks for the peer's end and fails for good when it
        # finds data, so that is taken out first; what is missing comes later.
        with contextlib.suppress(ssl.SSLError):
            while piece := self._tls.read(RECEIVE_BYTES):
                self._kept += piece
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._flush()

    async def _part(self, last_words: Callable[[], Awaitable[None]]) -> None:
        """Send last words and let go once the peer has read them, or soon.

        A socket closed while bytes lie unread in it resets the connection, and the
        reset may overtake the last words; so they are read until the peer closes.
        """
        sock = self._socket.socket
        try:
            with trio.move_on_after(LINGER_SECONDS):
                await last_words()
                sock.shutdown(socket.SHUT_WR)
                while await self._socket.receive_some(RECEIVE_BYTES):
                    pass
        except (TransportError, OSError, trio.BrokenResourceError):
            pass  # the peer was gone before; nobody is left to tell
        except trio.ClosedResourceError:
            pass  # another task aborted
        finally:
            sock.close()

    def _check(self) -> None:
        if self._failure is not None:
            # A new one each time: a raised error collects tracebacks for ever.
            raise type(self._failure)(str(self._failure), hint=self._failure.hint)

    def _fail(self, failure: TransportError) -> TransportError:
        """Keep the first failure for every later call; return it."""
        if self._failure is None:
            self._failure = failure
        return self._failure
