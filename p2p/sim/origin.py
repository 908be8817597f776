"""The origin behind the site's WAN link: gives whole objects over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from p2p.ostree.objects import ObjectName
from p2p.sim.network import Network
from p2p.sim.timeline import Timeline
from p2p.wire.messages import DeviceId


@dataclass(frozen=True, slots=True, eq=False)
class Get:
    """A request for an object."""

    name: ObjectName


@dataclass(frozen=True, slots=True, eq=False)
class Got:
    """An object, or None where the origin has it not."""

    name: ObjectName
    size: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Abort:
    """The end of interest in an object that was asked for."""

    name: ObjectName


@dataclass(frozen=True, slots=True, eq=False)
class Pace:
    """How fast a device reads from now on, in bytes/s; None: as fast as it can."""

    rate: float | None


class OriginServer:
    """Answers each connection's GETs in the order they come.

    Attributes:
        sizes: what it has.

    """

    def __init__(self, id_: DeviceId, network: Network, timeline: Timeline) -> None:
        self.id = id_
        self.sizes: dict[ObjectName, int] = {}
        self._network = network
        self._timeline = timeline
        self._rates: dict[DeviceId, float] = {}
        self._free: dict[DeviceId, float] = {}
        self._answers: dict[tuple[DeviceId, ObjectName], Got] = {}

    def joined(self, peer: DeviceId) -> None:
        """Take a connection."""

    def left(self, peer: DeviceId) -> None:
        """Take the end of a connection."""

    def resumed(self) -> None:
        """Go on."""

    def progressed(self, peer: DeviceId, message: object, size: int) -> None:
        """Take part of a message; there is none."""

    def sent(self, peer: DeviceId, message: object) -> None:
        """Take that an answer left."""

    def received(self, peer: DeviceId, message: object) -> None:
        """Answer a GET; stop answering one that is aborted."""
        if isinstance(message, Get):
            size = self.sizes.get(message.name)
            answer = Got(message.name, size)
            self._answers[peer, message.name] = answer
            self._answer(peer, answer)
        elif isinstance(message, Pace):
            self._rates[peer] = message.rate or inf
        elif isinstance(message, Abort) and (peer, message.name) in self._answers:
            # A GET may be lost with its connection; then there is no answer.
            answer = self._answers.pop((peer, message.name))
            self._network.hosts[self.id].pipes[peer].withdraw(answer)

    def _answer(self, peer: DeviceId, answer: Got) -> None:
        """Send an answer as soon as the device reads it."""
        rate = self._rates.get(peer, inf)
        now = self._timeline.now
        start = max(now, self._free.get(peer, now))
        self._free[peer] = start + (answer.size or 0) / rate
        if start > now:
            self._timeline.at(start, lambda: self._send(peer, answer))
        else:
            self._send(peer, answer)

    def _send(self, peer: DeviceId, answer: Got) -> None:
        if self._answers.get((peer, answer.name)) is answer:
            size = answer.size or 0
            self._network.send(self.id, peer, answer, size, is_bulk=True)
