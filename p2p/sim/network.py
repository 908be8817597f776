"""Hosts with an uplink and a downlink each, and sessions between them.

What a session sends is cut into slices of 64 KiB. The sessions of a host take turns at
its uplink and at its downlink, control messages of a session before its content. So
much of a session may be between the two as socket buffers hold; then it waits, and the
uplink serves others. There is no TCP besides: no loss, no slow start. A host may be
killed (its sessions are reset), go silent (nobody is told, until a PING times out), or
be suspended and resume.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from p2p.sim.timeline import Timeline
from p2p.wire.limits import MAX_SLICE_BYTES
from p2p.wire.messages import DeviceId

# A session whose PING is not answered for so long is over (protocol rule).
PING_SECONDS = 2.0
# How long discovery and handshake take before hosts that lost each other meet again.
REJOIN_SECONDS = 1.0
# What a session may have on its way, sent but not received.
_BUFFER_BYTES = 192 << 10
# Head and framing of a message.
MESSAGE_BYTES = 40


class Endpoint(Protocol):
    """What lives on a host."""

    def joined(self, peer: DeviceId) -> None:
        """Take a session that is up."""
        ...

    def left(self, peer: DeviceId) -> None:
        """Take the end of a session."""
        ...

    def progressed(self, peer: DeviceId, message: object, size: int) -> None:
        """Take that a part of some content came."""
        ...

    def received(self, peer: DeviceId, message: object) -> None:
        """Take a message that came completely."""
        ...

    def resumed(self) -> None:
        """Go on after a suspension."""
        ...


@dataclass(slots=True, eq=False)
class _Parcel:
    """A message on its way."""

    message: object
    size: int
    left: int
    is_bulk: bool


@dataclass(slots=True, eq=False)
class Pipe:
    """One direction of a session.

    Attributes:
        sent: bytes of content sent so far.
        queued: bytes of content waiting.
        coming: slices that wait for the receiver's downlink.
        buffered: bytes sent and not received yet.

    """

    source: Host
    target: Host
    control: deque[_Parcel] = field(default_factory=deque)
    bulk: deque[_Parcel] = field(default_factory=deque)
    coming: deque[tuple[_Parcel, int, bool]] = field(default_factory=deque)
    is_open: bool = True
    is_lined_up: bool = False
    is_due: bool = False
    sent: int = 0
    queued: int = 0
    buffered: int = 0

    def withdraw(self, message: object) -> bool:
        """Do not send (the rest of) some content; False if all of it is gone."""
        for parcel in self.bulk:
            if parcel.message is message:
                self.bulk.remove(parcel)
                self.queued -= parcel.left
                return True
        return False


@dataclass(slots=True, eq=False)
class Host:
    """A machine with its two links; rates in bytes/s.

    Attributes:
        sent, received: bytes that passed each link, headers included.
        control: those of `sent` that were no content.

    """

    id: DeviceId
    endpoint: Endpoint
    up: float
    down: float
    pipes: dict[DeviceId, Pipe] = field(default_factory=dict)
    lined_up: deque[Pipe] = field(default_factory=deque)
    due: deque[Pipe] = field(default_factory=deque)
    is_sending: bool = False
    is_receiving: bool = False
    is_silent: bool = False
    is_dead: bool = False
    sent: int = 0
    received: int = 0
    control: int = 0


class Network:
    """All hosts and their sessions."""

    def __init__(self, timeline: Timeline, *, latency: float) -> None:
        self.hosts: dict[DeviceId, Host] = {}
        self._timeline = timeline
        self._latency = latency

    def add(self, host: Host) -> None:
        """Plug a host in."""
        self.hosts[host.id] = host

    # -- sessions ----------------------------------------------------------------------

    def connect(self, one: DeviceId, other: DeviceId) -> None:
        """Open a session; both ends learn it at once."""
        first, second = self.hosts[one], self.hosts[other]
        if first.is_dead or second.is_dead or other in first.pipes:
            return
        first.pipes[other] = Pipe(first, second)
        second.pipes[one] = Pipe(second, first)
        first.endpoint.joined(other)
        second.endpoint.joined(one)

    def disconnect(self, one: DeviceId, other: DeviceId) -> None:
        """End a session from one side; the other learns it a little later."""
        self._close(self.hosts[one], other)
        self.hosts[one].pipes.pop(other, None)
        self._timeline.after(
            self._latency, lambda: self._notice(self.hosts[other], one)
        )

    def part(self, one: DeviceId, other: DeviceId) -> None:
        """End a session from one side, for the two to meet again later."""
        self.disconnect(one, other)
        self._timeline.after(REJOIN_SECONDS, partial(self._rejoin, one, other))

    def reset(self, one: DeviceId, other: DeviceId) -> None:
        """Break a session for both sides; they meet again later."""
        self._close(self.hosts[one], other)
        self._notice(self.hosts[one], other)
        self._notice(self.hosts[other], one)
        self._timeline.after(REJOIN_SECONDS, partial(self._rejoin, one, other))

    def _rejoin(self, one: DeviceId, other: DeviceId) -> None:
        first, second = self.hosts[one], self.hosts[other]
        if first.is_dead or second.is_dead:
            return
        if first.is_silent or second.is_silent:
            again = partial(self._rejoin, one, other)
            self._timeline.after(REJOIN_SECONDS, again)
        else:
            self.connect(one, other)

    def _close(self, host: Host, peer: DeviceId) -> None:
        for source, target in ((host, peer), (self.hosts[peer], host.id)):
            pipe = source.pipes.get(target)
            if pipe is not None:
                pipe.is_open = False
                pipe.control.clear()
                pipe.bulk.clear()
                pipe.queued = 0

    def _notice(self, host: Host, peer: DeviceId) -> None:
        pipe = host.pipes.get(peer)
        if pipe is not None and not pipe.is_open:
            del host.pipes[peer]
            if not host.is_dead:
                host.endpoint.left(peer)

    # -- sending -----------------------------------------------------------------------

    def send(
        self,
        source: DeviceId,
        target: DeviceId,
        message: object,
        size: int,
        *,
        is_bulk: bool = False,
    ) -> None:
        """Queue a message on the session, if there is one still."""
        host = self.hosts[source]
        pipe = host.pipes.get(target)
        if pipe is None or not pipe.is_open:
            return
        size += MESSAGE_BYTES
        parcel = _Parcel(message, size, size, is_bulk)
        (pipe.bulk if is_bulk else pipe.control).append(parcel)
        pipe.queued += size if is_bulk else 0
        self._line_up(pipe)
        self._pump(host)

    def _line_up(self, pipe: Pipe) -> None:
        """Let a session take its turn at the uplink, if it has anything to send."""
        may_send = pipe.is_open and pipe.buffered < _BUFFER_BYTES
        if may_send and not pipe.is_lined_up and (pipe.control or pipe.bulk):
            pipe.is_lined_up = True
            pipe.source.lined_up.append(pipe)

    def _pump(self, host: Host) -> None:
        if host.is_sending or host.is_silent or host.is_dead:
            return
        while host.lined_up:
            pipe = host.lined_up.popleft()
            pipe.is_lined_up = False
            queue = pipe.control or pipe.bulk
            if queue:
                self._send_slice(pipe, queue)
                return

    def _send_slice(self, pipe: Pipe, queue: deque[_Parcel]) -> None:
        host = pipe.source
        parcel = queue[0]
        size = min(MAX_SLICE_BYTES, parcel.left)
        parcel.left -= size
        is_last = not parcel.left
        if is_last:
            queue.popleft()
        if parcel.is_bulk:
            pipe.queued -= size
            pipe.sent += size
        else:
            host.control += size
        pipe.buffered += size
        host.is_sending = True
        host.sent += size
        self._timeline.after(
            size / host.up, lambda: self._sent(pipe, parcel, size, is_last=is_last)
        )

    def _sent(self, pipe: Pipe, parcel: _Parcel, size: int, *, is_last: bool) -> None:
        self._timeline.after(
            self._latency, lambda: self._come(pipe, parcel, size, is_last=is_last)
        )
        pipe.source.is_sending = False
        self._line_up(pipe)
        self._pump(pipe.source)

    def _come(self, pipe: Pipe, parcel: _Parcel, size: int, *, is_last: bool) -> None:
        pipe.coming.append((parcel, size, is_last))
        if not pipe.is_due:
            pipe.is_due = True
            pipe.target.due.append(pipe)
        self._drain(pipe.target)

    def _drain(self, host: Host) -> None:
        if host.is_receiving or host.is_silent or host.is_dead or not host.due:
            return
        pipe = host.due.popleft()
        parcel, size, is_last = pipe.coming.popleft()
        pipe.is_due = bool(pipe.coming)
        if pipe.is_due:
            host.due.append(pipe)
        host.is_receiving = True
        self._timeline.after(
            size / host.down, lambda: self._arrive(pipe, parcel, size, is_last=is_last)
        )

    def _arrive(self, pipe: Pipe, parcel: _Parcel, size: int, *, is_last: bool) -> None:
        target = pipe.target
        target.is_receiving = False
        pipe.buffered -= size
        self._line_up(pipe)
        self._pump(pipe.source)
        if pipe.is_open and not target.is_dead:
            target.received += size
            if parcel.is_bulk:
                target.endpoint.progressed(pipe.source.id, parcel.message, size)
            if is_last:
                target.endpoint.received(pipe.source.id, parcel.message)
        self._drain(target)

    # -- faults ------------------------------------------------------------------------

    def kill(self, device: DeviceId) -> None:
        """End a process at once: its kernel resets the sessions."""
        host = self.hosts[device]
        for peer in list(host.pipes):
            self.disconnect(device, peer)
        host.is_dead = True

    def silence(self, device: DeviceId) -> None:
        """Cut the power, or suspend: nobody is told."""
        host = self.hosts[device]
        host.is_silent = True
        for peer in list(host.pipes):
            self._timeline.after(PING_SECONDS, partial(self._miss, host, peer))

    def _miss(self, host: Host, peer: DeviceId) -> None:
        if host.is_silent and peer in host.pipes:
            self._close(host, peer)
            self._notice(self.hosts[peer], host.id)

    def resume(self, device: DeviceId) -> None:
        """Go on after `silence`; sessions that are over are opened anew."""
        host = self.hosts[device]
        host.is_silent = False
        for peer in list(host.pipes):
            if not host.pipes[peer].is_open:
                self._notice(host, peer)
                rejoin = partial(self._rejoin, device, peer)
                self._timeline.after(REJOIN_SECONDS, rejoin)
        host.endpoint.resumed()
        self._pump(host)
        self._drain(host)
