"""Pumps one authenticated stream through a `wire.Connection`, for trio.

One task reads and never waits for anything but the network; one task writes, control
first, then one slice of bulk at a time, so that what was cancelled is not sent. Whoever
decides gets the peer's messages in a plain call and answers with `send`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from p2p.errors import RemoteProtocolError, TransportError, TransportTimeoutError
from p2p.net.beat import Beat
from p2p.net.traffic import Upload
from p2p.net.transport import Transport
from p2p.wire import messages as m
from p2p.wire.connection import Connection
from p2p.wire.limits import UNIT_BYTES
from p2p.wire.remark import remark
from p2p.wire.session import Side

# The other side answers PING at once, so silence for so long means that it is gone,
# suspended, or behind a link that no longer exists.
PING_AFTER_SECONDS: Final = 2.0
DEAD_AFTER_SECONDS: Final = 6.0
# A session on which nobody waits for anything is left in peace for so much longer.
IDLE_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 3.0
# Two units: one on its way while the next one waits.
QUEUED_BULK_BYTES: Final = 2 * UNIT_BYTES
AHEAD_WRITES: Final = 4
# What goes into one write at least and at most: each costs a turn of the loop and a
# call of the kernel, and what is in it can be neither overtaken nor cancelled.
LEAST_WRITE_BYTES: Final = 16 << 10
WRITE_BYTES: Final = UNIT_BYTES
# A slow link brings a few packets each time somebody looks, and each look costs some
# 100 us. So the rest of a slice is waited for: only its end says something.
GATHER_SECONDS: Final = 0.016
LEAST_GATHER_SECONDS: Final = 0.001
# What was measured counts half after some slices.
_FADING: Final = 7 / 8
# So long a write should take, for requests and news wait behind it.
WRITE_SECONDS: Final = 0.02
# How long last words may take, and what was queued before them.
FAREWELL_SECONDS: Final = 1.0
LEAVE_SECONDS: Final = 6.0


class _Inflow:
    """How fast bulk came lately."""

    def __init__(self) -> None:
        self._bytes = self._seconds = 0.0

    def add(self, size: int, seconds: float) -> None:
        self._bytes = self._bytes * _FADING + size
        self._seconds = self._seconds * _FADING + seconds

    @property
    def seconds_a_byte(self) -> float:
        return self._seconds / self._bytes if self._bytes else 0.0


class Session:
    """One conversation with a peer, from HELLO to BYE.

    Attributes:
        peer: who it is, as its certificate proved.
        connection: the protocol's state.
        on_quiet: called when we only listen for long: has us say something, because
            a peer whose PING waits behind bulk that we read slowly must hear of us.
        received_bytes, sent_bytes: on the stream, headers included.

    """

    def __init__(
        self,
        stream: Transport,
        peer: m.DeviceId,
        upload: Upload | None = None,
        beat: Beat | None = None,
    ) -> None:
        """Talk with a peer; no more bulk is sent than `upload` grants.

        Sessions of one `beat` take in what comes slowly at the same moments.
        """
        self.peer = peer
        self.connection = Connection()
        self.received_bytes = 0
        self.sent_bytes = 0
        self._stream = stream
        self.on_quiet: Callable[[], None] = _say_nothing
        self._upload = upload or Upload()
        self._beat = beat or Beat()
        self._is_queued = False
        self._granted = 0
        self._write_bytes = WRITE_BYTES // 4
        self._wake = trio.Event()
        self._drained = trio.Event()
        self._last_heard = 0.0
        self._last_said = 0.0
        self._inflow = _Inflow()
        self._farewell: m.Bye | None = None
        self._leaving_since = 0.0
        self._failure: TransportTimeoutError | None = None
        self._failed = trio.Event()

    def __repr__(self) -> str:
        return (
            f"<Session {self.peer[:12]} {self.connection!r} "
            f"in {self.received_bytes} out {self.sent_bytes}>"
        )

    def send(self, message: m.Message) -> None:
        """Queue a message; a peer that reads none of them ends the session.

        Raises:
            LocalProtocolError: the message is malformed, or not allowed now.

        """
        try:
            self.connection.send(message)
        except RemoteProtocolError as error:
            # Whoever sends is not at fault: `run` raises it.
            self._failure = TransportTimeoutError(str(error), hint=error.hint)
            self._failed.set()
        self._wake.set()

    @property
    def ahead_bytes(self) -> int:
        """How much is worth having at hand: what goes out in some writes.

        Two units on a fast link; less on one that takes longer for them, or has many
        sessions, each with so much in memory.
        """
        return min(QUEUED_BULK_BYTES, AHEAD_WRITES * self._write_bytes)

    async def wait_for_room(self) -> None:
        """Wait until little bulk is queued, so that more may be read from the disk."""
        while self.connection.queued_bulk_bytes > self.ahead_bytes:
            self._drained = trio.Event()
            await self._drained.wait()

    @property
    def farewell(self) -> m.Bye | None:
        """What we said last, or are about to say."""
        return self._farewell

    def leave(self, reason: m.Farewell, text: str = "") -> None:
        """End the session once what is queued before was sent, or soon."""
        if self._farewell is None:
            self._farewell = m.Bye(reason, remark(text))
            self._leaving_since = trio.current_time()
        self._wake.set()

    async def run(
        self,
        hello: m.Hello,
        receive: Callable[[m.Message], None],
        count: Callable[[int], None],
    ) -> None:
        """Talk until one side leaves.

        Args:
            hello: what we say of ourselves.
            receive: gets every message of the peer, HELLO first.
            count: hears how many bytes came, before what they complete.

        Raises:
            RemoteProtocolError: the peer broke the protocol; it was told.
            TransportError: the connection broke or the peer fell silent.

        """
        self._last_heard = self._last_said = trio.current_time()
        self.send(hello)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                nursery.start_soon(self._write, nursery.cancel_scope)
                await self._read(receive, count)
                # What they asked for before they left is of no use to anybody.
                nursery.cancel_scope.cancel()
        finally:
            self._upload.withdraw(self._grant)
            await self._stream.aclose()

    async def _read(
        self, receive: Callable[[m.Message], None], count: Callable[[int], None]
    ) -> None:
        was_within = False
        while True:
            data = await self._stream.receive_some()
            if not data:
                return
            heard, self._last_heard = self._last_heard, trio.current_time()
            self.received_bytes += len(data)
            count(len(data))
            self.connection.receive_data(data)
            try:
                while (message := self.connection.next_event()) is not None:
                    receive(message)
                    if isinstance(message, m.Bye):
                        return
            except RemoteProtocolError as error:
                await self._say_last(m.Bye(m.Farewell.PROTOCOL, remark(str(error))))
                raise
            if self.connection.has_output:
                self._wake.set()
            was_within = await self._gather(len(data), heard, within=was_within)

    async def _gather(self, size: int, before: float, *, within: bool) -> bool:
        """Wait for the rest of a slice if it comes slowly; tell whether one has begun.

        So many bytes came since the time `before`; if `within` a slice, they say how
        fast it comes.
        """
        left = self.connection.slice_left
        if within:
            self._inflow.add(size, self._last_heard - before)
        due = left * self._inflow.seconds_a_byte
        if due > LEAST_GATHER_SECONDS:
            await self._beat.wait(min(due, GATHER_SECONDS))
        return left > 0

    async def _write(self, whole: trio.CancelScope) -> None:
        while True:
            data = self._next_data()
            if data:
                self.sent_bytes += len(data)
                began = trio.current_time()
                await self._stream.send_all(data)
                self._last_said = trio.current_time()
                self._pace(len(data), self._last_said - began)
                self._drained.set()
            elif self._farewell is not None:
                # Bulk that has no turn yet is given up: it may take long to come.
                await self._say_last(self._farewell)
                whole.cancel()
                return
            else:
                self._wake = trio.Event()
                await self._wake.wait()

    def _next_data(self) -> bytes:
        """Return the bytes for one write; nothing if nothing may be sent now."""
        if self._upload.rate is not None:
            return self._next_granted()
        return self._take(self._write_bytes)

    def _pace(self, size: int, seconds: float) -> None:
        """Write less at once on a slow or crowded link, more on a fast one."""
        if size < self._write_bytes:
            return
        if seconds > WRITE_SECONDS:
            self._write_bytes = max(self._write_bytes // 2, LEAST_WRITE_BYTES)
        elif seconds < WRITE_SECONDS / 4:
            self._write_bytes = min(self._write_bytes * 2, WRITE_BYTES)

    def _take(self, bulk_bytes: int) -> bytes:
        """Return all control that waits, and at most so much bulk, about."""
        buffers: list[bytes | memoryview] = []
        left = bulk_bytes
        while more := self.connection.data_to_send(left):
            buffers += more
            left = max(0, left - sum(map(len, more)))
        return b"".join(buffers)

    # -- turns to send bulk ------------------------------------------------------

    def _next_granted(self) -> bytes:
        """Return control, and bulk as far as a turn has come; queue for the next."""
        granted, self._granted = self._granted, 0
        data = self._take(granted)
        self._upload.count(len(data), granted)
        if self.connection.queued_bulk_bytes and not self._is_queued:
            self._is_queued = True
            self._upload.ask(self._grant)
        return data

    def _grant(self, size: int) -> None:
        self._is_queued = False
        self._granted = size
        self._wake.set()

    async def _say_last(self, bye: m.Bye) -> None:
        """Send BYE and end our direction, if the peer still reads."""
        if self.connection.ours is not Side.OPEN:
            return
        self.connection.send(bye)
        with trio.move_on_after(FAREWELL_SECONDS):
            try:
                while buffers := self.connection.data_to_send():
                    await self._stream.send_all(b"".join(buffers))
            except (TransportError, trio.BusyResourceError):
                # The peer no longer listens, or the writer is in the middle of a
                # slice that it does not take: then it learns it from the close.
                return

    @property
    def _is_idle(self) -> bool:
        connection = self.connection
        is_used = connection.asked or connection.owed or self._farewell is not None
        return connection.is_up and not is_used

    @property
    def _only_listens(self) -> bool:
        """Whether the peer speaks and has not heard of us for long."""
        return self._last_heard - self._last_said >= PING_AFTER_SECONDS

    async def _watch(self) -> None:
        """Find out when the peer is gone without a word, or reads no more."""
        token = 0
        while True:
            if self._failure is not None:
                raise self._failure
            now = trio.current_time()
            if (
                self._farewell is not None
                and now >= self._leaving_since + LEAVE_SECONDS
            ):
                raise TransportTimeoutError(
                    f"neighbour {self.peer[:12]} does not read our last words"
                )
            silent = now - self._last_heard
            patience = IDLE_SECONDS if self._is_idle else 0.0
            if silent >= patience + DEAD_AFTER_SECONDS:
                raise TransportTimeoutError(
                    f"neighbour {self.peer[:12]} fell silent for {silent:.0f} seconds"
                )
            connection = self.connection
            quiet = silent >= patience + PING_AFTER_SECONDS
            if quiet and connection.is_up and not connection.awaits_pong:
                token += 1
                self.send(m.Ping(token))
            elif connection.is_up and self._only_listens:
                self.on_quiet()
            # Sixteen idle sessions that looked every second would be work, too.
            pause = LOOK_SECONDS if self._is_idle else PING_AFTER_SECONDS / 2
            with trio.move_on_after(pause):
                await self._failed.wait()


def _say_nothing() -> None:
    """There is nothing to be said."""
