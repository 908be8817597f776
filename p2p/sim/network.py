"""Hosts with an uplink and a downlink each, and sessions between them.

What a session sends is cut into slices of 64 KiB. The sessions of a host take turns at
its uplink and at its downlink, control messages of a session before its content. So
much of a session may be between the two as socket buffers hold; then it waits, and the
uplink serves others. There is no TCP besides: what is lost comes late, and nothing
else. A host may be killed (its sessions are reset), go silent (nobody is told, until a
PING times out), or be suspended and resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from p2p.sim.host import Host, Parcel, Pipe, Slice
from p2p.sim.link import GOODPUT, Loss, on_link
from p2p.sim.timeline import Timeline
from p2p.wire.limits import MAX_SLICE_BYTES
from p2p.wire.messages import DeviceId

# A session whose PING is not answered for so long is over (protocol rule).
PING_SECONDS = 2.0
# How long discovery and handshake take before hosts that lost each other meet again.
REJOIN_SECONDS = 1.0
# What a session may have on its way, sent but not received.
_BUFFER_BYTES = 192 << 10


class Network:
    """All hosts and their sessions."""

    def __init__(
        self,
        timeline: Timeline,
        *,
        latency: float,
        weigh: Callable[[object], int | None],
        loss: Loss | None = None,
    ) -> None:
        """Begin with no hosts; `weigh` tells the length of a message's frames."""
        self.hosts: dict[DeviceId, Host] = {}
        self._timeline = timeline
        self._latency = latency
        self._weigh = weigh
        self._loss = loss
        self._weighed: object = None
        self._frames: int | None = None
        self._halves: tuple[frozenset[DeviceId], frozenset[DeviceId]] | None = None

    def add(self, host: Host) -> None:
        """Plug a host in."""
        self.hosts[host.id] = host

    # -- sessions ----------------------------------------------------------------------

    def connect(self, one: DeviceId, other: DeviceId) -> None:
        """Open a session; both ends learn it at once."""
        first, second = self.hosts[one], self.hosts[other]
        if first.is_dead or second.is_dead or other in first.pipes:
            return
        if self._is_apart(one, other):
            return
        first.pipes[other] = Pipe(first, second)
        second.pipes[one] = Pipe(second, first)
        first.endpoint.joined(other)
        second.endpoint.joined(one)

    def disconnect(self, one: DeviceId, other: DeviceId) -> None:
        """End a session from one side; the other learns it a little later."""
        self._close(self.hosts[one], other)
        self.hosts[one].pipes.pop(other, None)
        self._timeline.after(self._latency, self._notice, self.hosts[other], one)

    def part(self, one: DeviceId, other: DeviceId) -> None:
        """End a session from one side, for the two to meet again later."""
        self.disconnect(one, other)
        self._timeline.after(REJOIN_SECONDS, self._rejoin, one, other)

    def reset(self, one: DeviceId, other: DeviceId) -> None:
        """Break a session for both sides; they meet again later."""
        self._close(self.hosts[one], other)
        self._notice(self.hosts[one], other)
        self._notice(self.hosts[other], one)
        self._timeline.after(REJOIN_SECONDS, self._rejoin, one, other)

    def _rejoin(self, one: DeviceId, other: DeviceId) -> None:
        first, second = self.hosts[one], self.hosts[other]
        if first.is_dead or second.is_dead:
            return
        if first.is_silent or second.is_silent or self._is_apart(one, other):
            self._timeline.after(REJOIN_SECONDS, self._rejoin, one, other)
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
        size: int = 0,
        *,
        is_bulk: bool = False,
    ) -> None:
        """Queue a message on the session, if there is one still.

        `size` is that of its content, or of a message whose weight is not known.
        """
        host = self.hosts[source]
        pipe = host.pipes.get(target)
        if pipe is None or not pipe.is_open:
            return
        if message is not self._weighed:
            # Most messages go to several neighbours, one after the other.
            self._weighed, self._frames = message, self._weigh(message)
        frames = self._frames
        if is_bulk:
            pipe.bulk.append(Parcel(message, size, frames or 0))
            pipe.queued += size
        else:
            pipe.control.append((message, size if frames is None else frames))
        self._line_up(pipe)
        self._pump(host)

    def _line_up(self, pipe: Pipe) -> None:
        """Let a session take its turn at the uplink, if it has anything to send."""
        if (
            not pipe.is_lined_up
            and (pipe.control or pipe.bulk)
            and pipe.is_open
            and not pipe.is_cut
            and pipe.buffered < _BUFFER_BYTES
        ):
            pipe.is_lined_up = True
            pipe.source.lined_up.append(pipe)

    def _pump(self, host: Host) -> None:
        """Send the next slice, if the uplink is free."""
        if host.is_sending or host.is_silent or host.is_dead:
            return
        while host.lined_up:
            pipe = host.lined_up.popleft()
            pipe.is_lined_up = False
            if (pipe.control or pipe.bulk) and not pipe.is_cut:
                cut = self._cut_control if pipe.control else self._cut_content
                host.is_sending = True
                part = cut(pipe)
                self._timeline.after(part.size / host.up, self._sent, part)
                return

    def _cut_control(self, pipe: Pipe) -> Slice:
        """Return all control messages of a session: they are written together."""
        messages = [message for message, _ in pipe.control]
        size = on_link(sum([frames for _, frames in pipe.control]))
        pipe.control.clear()
        pipe.source.control += size
        pipe.buffered += size
        return Slice(pipe, size, size, 0, messages)

    def _cut_content(self, pipe: Pipe) -> Slice:
        """Return the next slice of the oldest content of a session."""
        parcel = pipe.bulk[0]
        content = parcel.left
        if content > MAX_SLICE_BYTES:
            content = MAX_SLICE_BYTES
            parcel.left -= content
            messages: list[object] = []
        else:
            parcel.left = 0
            pipe.bulk.popleft()
            messages = [parcel.message]
        # The head is written before the content, in the same record.
        pipe.source.control += parcel.head
        size = content / GOODPUT + parcel.head
        parcel.head = 0
        pipe.queued -= content
        pipe.sent += content
        pipe.buffered += content
        pipe.source.content += content
        pipe.source.gave = self._timeline.now + size / pipe.source.up
        return Slice(pipe, size, content, content, messages, parcel)

    def _sent(self, part: Slice) -> None:
        pipe = part.pipe
        target = pipe.target
        now = self._timeline.now
        if self._loss is not None and self._loss.hits():
            pipe.held = max(pipe.held, now) + self._loss.seconds()
        if now < pipe.held:
            self._timeline.at(pipe.held + self._latency, self._come, part)
        else:
            target.coming.append((now + self._latency, part))
            if not target.is_receiving:
                self._drain(target)
        pipe.source.is_sending = False
        if part.parcel is not None and pipe.is_open and not pipe.source.is_dead:
            for message in part.messages:
                pipe.source.endpoint.sent(target.id, message)
        self._line_up(pipe)
        self._pump(pipe.source)

    def _come(self, part: Slice) -> None:
        self._queue_up(part)
        self._drain(part.pipe.target)

    def _drain(self, host: Host) -> None:
        """Receive the next slice, if the downlink is free.

        If nothing has come yet, it is the first one on its way.
        """
        if host.is_receiving or host.is_silent or host.is_dead:
            return
        now = self._timeline.now
        coming = host.coming
        while coming and coming[0][0] <= now:
            self._queue_up(coming.popleft()[1])
        if host.due:
            pipe = host.due.popleft()
            part = pipe.due.popleft()
            pipe.is_due = bool(pipe.due)
            if pipe.is_due:
                host.due.append(pipe)
        elif coming:
            now, part = coming.popleft()
        else:
            return
        host.is_receiving = True
        self._timeline.at(now + part.size / host.down, self._arrive, part)

    def _queue_up(self, part: Slice) -> None:
        """Let a slice wait for the downlink."""
        pipe = part.pipe
        pipe.due.append(part)
        if not pipe.is_due:
            pipe.is_due = True
            pipe.target.due.append(pipe)

    def _arrive(self, part: Slice) -> None:
        pipe = part.pipe
        target = pipe.target
        target.is_receiving = False
        if target.is_silent:
            self._queue_up(part)
            return
        pipe.buffered -= part.buffer
        self._line_up(pipe)
        self._pump(pipe.source)
        if pipe.is_open and not target.is_dead:
            peer, endpoint = pipe.source.id, target.endpoint
            if part.parcel is not None:
                target.received += part.content
                endpoint.progressed(peer, part.parcel.message, part.content)
            for message in part.messages:
                endpoint.received(peer, message)
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
            self._timeline.after(PING_SECONDS, self._miss, host, peer)

    def _miss(self, host: Host, peer: DeviceId) -> None:
        if host.is_silent and peer in host.pipes:
            self._close(host, peer)
            self._notice(self.hosts[peer], host.id)

    def resume(self, device: DeviceId) -> None:
        """Go on after `silence`; sessions that are over are opened anew."""
        host = self.hosts[device]
        host.is_silent = False
        for peer, pipe in list(host.pipes.items()):
            if not pipe.is_open:
                self._notice(host, peer)
                self._timeline.after(REJOIN_SECONDS, self._rejoin, device, peer)
        host.endpoint.resumed()
        self._pump(host)
        self._drain(host)

    def cut(self, half: Iterable[DeviceId], other: Iterable[DeviceId]) -> None:
        """Let nothing pass between two groups of hosts, until `heal`."""
        self._halves = frozenset(half), frozenset(other)
        for pipe in self._pipes():
            if self._is_apart(pipe.source.id, pipe.target.id):
                pipe.is_cut = True
                self._timeline.after(PING_SECONDS, self._time_out, pipe)

    def _pipes(self) -> list[Pipe]:
        return [pipe for host in self.hosts.values() for pipe in host.pipes.values()]

    def _is_apart(self, one: DeviceId, other: DeviceId) -> bool:
        if self._halves is None:
            return False
        left, right = self._halves
        return (one in left and other in right) or (one in right and other in left)

    def _time_out(self, pipe: Pipe) -> None:
        if pipe.is_cut and pipe.is_open:
            self.reset(pipe.source.id, pipe.target.id)

    def heal(self) -> None:
        """Let everything pass again; sessions that are over are opened anew."""
        self._halves = None
        for pipe in self._pipes():
            pipe.is_cut = False
            self._line_up(pipe)
            self._pump(pipe.source)
