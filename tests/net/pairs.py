"""Pairs of connected transports: TLS over loopback TCP, and streams in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from p2p.errors import TransportClosedError
from p2p.net.stream import TLSStream
from p2p.net.tls import Endpoint
from p2p.net.transport import OneTask, Transport, closed_here, torn
from tests.net.conformance import Pair


@asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends of a TCP connection over loopback."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener:
        port = listener.socket.getsockname()[1]
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as left,
            await listener.accept() as right,
        ):
            yield left, right


@asynccontextmanager
async def tls_pair(left: Endpoint, right: Endpoint) -> AsyncIterator[Pair]:
    """Two devices that shook hands; `left` dialled."""
    async with tcp_pair() as (dialler, accepter):
        ends: dict[str, TLSStream] = {}

        async def meet(name: str, endpoint: Endpoint, sock: trio.SocketStream) -> None:
            contact = await endpoint.meet(sock, name, server_side=name == "right")
            assert isinstance(contact.stream, TLSStream)
            ends[name] = contact.stream

        async with trio.open_nursery() as nursery:
            nursery.start_soon(meet, "left", left, dialler)
            nursery.start_soon(meet, "right", right, accepter)

        async def sever() -> None:
            # What the kernel does for a killed process: FIN, and no close_notify.
            dialler.socket.close()

        yield Pair(ends["left"], ends["right"], sever)
        for end in ends.values():
            end.abort()


@asynccontextmanager
async def memory_pair() -> AsyncIterator[Pair]:
    """Two ends in memory; the clock may be a mock."""
    there, back = Pipe(), Pipe()
    left = MemoryTransport(incoming=back, outgoing=there)

    async def sever() -> None:
        left.abort()

    yield Pair(left, MemoryTransport(incoming=there, outgoing=back), sever)


class Pipe:
    """One direction: bytes on their way, and how it ended."""

    # About what a socket holds.
    ROOM_BYTES = 1 << 20

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.broken = False
        self._changed = trio.Event()

    async def change(self) -> None:
        await self._changed.wait()

    def changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class MemoryTransport(Transport):
    """One end of a connection that never leaves the process."""

    def __init__(self, *, incoming: Pipe, outgoing: Pipe) -> None:
        self._in = incoming
        self._out = outgoing
        self._failure: TransportClosedError | None = None
        self._sending = OneTask("sending")
        self._receiving = OneTask("receiving")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_sending()
            left = memoryview(data)
            while left:
                room = Pipe.ROOM_BYTES - len(self._out.data)
                self._out.data += left[:room]
                left = left[room:]
                self._out.changed()
                if left:
                    await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        try:
            while len(self._out.data) >= Pipe.ROOM_BYTES:
                await self._out.change()
                self._check_sending()
        except trio.Cancelled:
            self._failure = torn()
            raise

    def _check_sending(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._out.broken:
            raise TransportClosedError("the other side closed the connection")
        if self._out.ended:
            raise TransportClosedError("this side has said that nothing follows")

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._failure is not None:
            raise self._failure
        self._out.ended = True
        self._out.changed()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._receiving:
            await trio.lowlevel.checkpoint_if_cancelled()
            while True:
                if self._failure is not None:
                    raise self._failure
                if self._in.broken:
                    raise TransportClosedError("the other side vanished")
                if self._in.data or self._in.ended:
                    break
                await self._in.change()
            size = 1 << 16 if max_bytes is None else max_bytes
            some = bytes(self._in.data[:size])
            del self._in.data[:size]
            self._in.changed()
            return some

    async def aclose(self) -> None:
        if self._failure is None and not self._sending.busy:
            self._out.ended = True
        self.abort()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self._failure = self._failure or closed_here()
        self._out.broken |= not self._out.ended
        self._in.broken = True
        self._in.changed()
        self._out.changed()
