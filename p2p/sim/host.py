"""A machine of a virtual site: its links, its sessions, and what waits on them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from p2p.wire.messages import DeviceId


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

    def sent(self, peer: DeviceId, message: object) -> None:
        """Take that some content left completely."""
        ...

    def resumed(self) -> None:
        """Go on after a suspension."""
        ...


@dataclass(slots=True, eq=False)
class Parcel:
    """A message that waits: how much of it, and for content the head before it."""

    message: object
    left: int
    head: int = 0


@dataclass(slots=True, eq=False)
class Slice:
    """What is sent at once: control messages, or a part of some content.

    Attributes:
        size: bytes on the link.
        buffer: bytes that wait between the two links.
        content: how much content is in it.
        messages: what is complete with it.

    """

    pipe: Pipe
    size: float
    buffer: int
    content: int
    messages: list[object]
    parcel: Parcel | None = None


@dataclass(slots=True, eq=False)
class Pipe:
    """One direction of a session.

    Attributes:
        sent: bytes of content sent so far.
        queued: bytes of content waiting.
        due: slices that wait for the receiver's downlink.
        buffered: bytes sent and not received yet.
        held: until when what was lost, and all behind it, waits to be sent again.

    """

    source: Host
    target: Host
    control: deque[tuple[object, int]] = field(default_factory=deque)
    bulk: deque[Parcel] = field(default_factory=deque)
    due: deque[Slice] = field(default_factory=deque)
    is_open: bool = True
    is_lined_up: bool = False
    is_due: bool = False
    is_cut: bool = False
    sent: int = 0
    queued: int = 0
    buffered: int = 0
    held: float = 0.0

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
        lined_up: sessions that wait for the uplink, in turns.
        coming: slices on their way, with the times at which they will be here.
        due: sessions slices of which wait for the downlink, in turns.
        content, received: bytes of content that passed each link.
        control: bytes of everything else that passed the uplink, with the headers of
            TLS, TCP and IP; those of content are not counted.
        gave: when the last content left.

    """

    id: DeviceId
    endpoint: Endpoint
    up: float
    down: float
    pipes: dict[DeviceId, Pipe] = field(default_factory=dict)
    lined_up: deque[Pipe] = field(default_factory=deque)
    coming: deque[tuple[float, Slice]] = field(default_factory=deque)
    due: deque[Pipe] = field(default_factory=deque)
    is_sending: bool = False
    is_receiving: bool = False
    is_silent: bool = False
    is_dead: bool = False
    content: int = 0
    received: int = 0
    control: int = 0
    gave: float = 0.0

    @property
    def sent(self) -> int:
        """Bytes that passed the uplink, content without headers."""
        return self.content + self.control
