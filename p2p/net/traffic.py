"""How all sessions with neighbours together use the network: rates and priority.

Theory of operation. Sending is shared slice by slice: a session that has bulk to send
queues for a turn, and whoever is first gets one as soon as the bucket allows. Control
is never held back, so that a neighbour that waits hears why; it is counted, and bulk
waits longer for it. Receiving needs no queue: each session reads one slice whenever the
bucket allows, and what is not read yet makes the other side wait, whose kernel is told
to send little ahead. So what it says besides is at most a moment behind.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import trio

from p2p import qos
from p2p.net.beat import Beat
from p2p.rate import Bucket, on_wire

Grant = Callable[[int], None]
"""Is told how many bytes of bulk a session may send."""

_UNREAD_SECONDS: Final = 0.2
# What Linux takes to begin with. Less than a peer was promised already would be lost.
_LEAST_UNREAD_BYTES: Final = 64 << 10


class Upload:
    """Gives sessions their turns to send; `run` must run where there is a rate."""

    def __init__(self) -> None:
        self._bucket = Bucket()
        self._queue: deque[Grant] = deque()
        self._changed = trio.Event()

    @property
    def rate(self) -> float | None:
        """Bytes a second for all sessions together; None: no limit."""
        return self._bucket.rate

    def change(self, rate: float | None) -> None:
        """Keep to another rate from now on."""
        self._bucket.change(rate, trio.current_time())
        self._changed.set()

    def ask(self, grant: Grant) -> None:
        """Queue for a turn; `grant` is called once it has come."""
        self._queue.append(grant)
        self._changed.set()

    def withdraw(self, grant: Grant) -> None:
        """Queue no more, if that is so."""
        if grant in self._queue:
            self._queue.remove(grant)

    def count(self, size: int, granted: int = 0) -> None:
        """Count bytes written, of which so many were granted."""
        now = trio.current_time()
        self._bucket.take(on_wire(size) - on_wire(granted), now)

    async def run(self) -> None:
        """Give turns until cancelled."""
        while True:
            now = trio.current_time()
            due = self._bucket.due(now)
            if self._queue and due <= now:
                size = self._bucket.slice_bytes
                self._bucket.take(on_wire(size), now)
                self._queue.popleft()(size)
                continue
            self._changed = trio.Event()
            with trio.move_on_at(due if self._queue else float("inf")):
                await self._changed.wait()


class Download:
    """Says when something may be read, and how much."""

    def __init__(self) -> None:
        self._bucket = Bucket()
        self._changed = trio.Event()

    @property
    def rate(self) -> float | None:
        """Bytes a second for all sessions together; None: no limit."""
        return self._bucket.rate

    @property
    def unread_bytes(self) -> int | None:
        """How much one neighbour may send ahead of what is read."""
        if self.rate is None:
            return None
        return max(_LEAST_UNREAD_BYTES, int(self.rate * _UNREAD_SECONDS))

    def change(self, rate: float | None) -> None:
        """Keep to another rate from now on."""
        self._bucket.change(rate, trio.current_time())
        self._changed.set()
        self._changed = trio.Event()

    async def turn(self, most: int) -> int:
        """Wait until something may be read; return how much, at most `most`."""
        while (due := self._bucket.due(trio.current_time())) > trio.current_time():
            with trio.move_on_at(due):
                await self._changed.wait()
        return min(most, self._bucket.slice_bytes)

    def count(self, size: int) -> None:
        """Count bytes read."""
        self._bucket.take(on_wire(size), trio.current_time())


class Traffic:
    """What all sessions share, and the sockets it is applied to.

    Attributes:
        upload, download: the rates.
        beat: when sessions take in what comes slowly.

    """

    def __init__(self) -> None:
        """Begin without limits and marks."""
        self.upload = Upload()
        self.download = Download()
        self.beat = Beat()
        self._dscp: int | None = None
        self._streams: weakref.WeakSet[trio.SocketStream] = weakref.WeakSet()
        self._hearing: list[Callable[[], None]] = []
        self._avoided: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def telling(self, hear: Callable[[], None]) -> Iterator[None]:
        """Have `hear` called after each change for the time of the block."""
        self._hearing.append(hear)
        try:
            yield
        finally:
            self._hearing.remove(hear)

    def change(
        self, *, upload: float | None, download: float | None, dscp: int | None
    ) -> None:
        """Keep to other settings from now on, on the sessions that are up, too."""
        is_marked = dscp != self._dscp
        is_bounded = download != self.download.rate
        self._dscp = dscp
        self.upload.change(upload)
        self.download.change(download)
        for stream in list(self._streams):
            self._apply(stream, mark=is_marked, bound=is_bounded)
        for hear in list(self._hearing):
            hear()

    def avoid(self, addresses: Iterable[str]) -> None:
        """Have no connections from these addresses of ours; those that are up end."""
        self._avoided = frozenset(addresses)
        for stream in list(self._streams):
            if self.avoids(stream):
                with contextlib.suppress(OSError):  # the peer was faster
                    stream.socket.shutdown(socket.SHUT_RDWR)

    def avoids(self, stream: trio.SocketStream) -> bool:
        """Tell whether there should be no such connection."""
        if not self._avoided or stream.socket.fileno() == -1:
            return False
        return _own_address(stream) in self._avoided

    def add(self, stream: trio.SocketStream) -> None:
        """Apply the settings to a connection from now on, until it is closed."""
        self._streams.add(stream)
        self._apply(
            stream, mark=self._dscp is not None, bound=self.download.rate is not None
        )

    def _apply(self, stream: trio.SocketStream, *, mark: bool, bound: bool) -> None:
        sock = stream.socket
        if sock.fileno() == -1:
            return  # closed, and not forgotten yet
        if mark:
            qos.mark(sock, self._dscp)
        if bound:
            qos.bound_unread(sock, self.download.unread_bytes)


def _own_address(stream: trio.SocketStream) -> str:
    """Return our end's address, IPv4 as such."""
    name = str(stream.socket.getsockname()[0]).partition("%")[0]
    address = ipaddress.ip_address(name)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
