"""A virtual site: devices, who is connected to whom, an origin; and its figures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random

from p2p.sim.device import Device
from p2p.sim.giver import Giver
from p2p.sim.host import Host
from p2p.sim.link import GOODPUT, Loss
from p2p.sim.network import Network
from p2p.sim.origin import OriginServer
from p2p.sim.timeline import Timeline
from p2p.sim.tree import Tree
from p2p.sim.villain import Forging
from p2p.sim.weight import frame_bytes
from p2p.swarm.tuning import Tuning
from p2p.wire.messages import DeviceId

MBIT = 125_000
"""Bytes/s of one megabit per second."""

# Sessions a device keeps in a large site.
DEGREE = 16
# How often it is looked whether everybody has finished.
_LOOK_SECONDS = 0.05


def device_id(text: str) -> DeviceId:
    """Return a made-up device id, the same for the same text."""
    return DeviceId(hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run came to.

    Attributes:
        seconds: until the last device had everything.
        first: until the first had.
        finished: until each living device had that did.
        sent: bytes each host sent.
        control: how much of all that was no content.
        duplicate: bytes received twice, of all devices.
        wan: bytes the origin sent.

    """

    seconds: float
    first: float
    finished: tuple[float, ...]
    unfinished: int
    sent: dict[DeviceId, int]
    control: int
    duplicate: int
    wan: int


class VirtualSite:
    """Builds a site and lets it run; equal seeds give equal runs."""

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: float = 0.0005,
        wan: float | None = None,
        loss: float = 0.0,
        tuning: Tuning | None = None,
    ) -> None:
        """Begin with an empty site.

        Args:
            seed: decides everything that is left to chance.
            latency: seconds from one host to another.
            wan: the origin's rate in bytes/s; None: there is no origin.
            loss: the chance of a slice to be lost and sent again.
            tuning: of every scheduler.

        """
        self.timeline = Timeline()
        self.network = Network(
            self.timeline,
            latency=latency,
            weigh=frame_bytes,
            loss=Loss(loss, seed) if loss else None,
        )
        self.devices: dict[DeviceId, Device] = {}
        self.origin: OriginServer | None = None
        self.forgers: set[DeviceId] = set()
        self._random = Random(seed)  # noqa: S311 - equal seeds, equal runs
        self._tuning = tuning
        self._waiting = 0
        if wan is not None:
            self.origin = OriginServer(device_id("origin"), self.network, self.timeline)
            self.network.add(Host(self.origin.id, self.origin, wan, wan))

    def add(
        self,
        name: str,
        *,
        up: float,
        down: float | None = None,
        giver: type[Giver] = Giver,
    ) -> Device:
        """Add a device with these rates; it is connected to nobody yet."""
        device = Device(
            device_id(name),
            network=self.network,
            timeline=self.timeline,
            seed=self._random.getrandbits(64),
            tuning=self._tuning,
            origin=self.origin.id if self.origin else None,
            giver=giver,
        )
        device.store.forgers = self.forgers
        if giver is Forging:
            self.forgers.add(device.id)
        self.devices[device.id] = device
        self.network.add(Host(device.id, device, up, down or up))
        if self.origin:
            self.network.connect(device.id, self.origin.id)
        return device

    def connect(self, degree: int = DEGREE) -> None:
        """Connect all devices: each with each, or in a large site with some others.

        Large sites are a ring with two neighbours on each side, and chords.
        """
        ids = sorted(self.devices)
        for k, one in enumerate(ids):
            if len(ids) <= degree + 1:
                for other in ids[k + 1 :]:
                    self.network.connect(one, other)
                continue
            for step in (1, 2):
                self.network.connect(one, ids[(k + step) % len(ids)])
        if len(ids) > degree + 1:
            self._connect_chords(ids, degree)

    def _connect_chords(self, ids: list[DeviceId], degree: int) -> None:
        room = {one: degree - len(self._neighbours(one)) for one in ids}
        hosts = self.network.hosts
        for one in ids:
            others = [x for x in ids if room[x] > 0 and x != one]
            self._random.shuffle(others)
            for other in others:
                if room[one] <= 0:
                    break
                if other not in hosts[one].pipes:
                    self.network.connect(one, other)
                    room[one] -= 1
                    room[other] -= 1

    def join(self, device: Device, degree: int = DEGREE) -> None:
        """Connect a device that comes late with some of the others."""
        others = [one for one in self.devices if one != device.id]
        count = min(degree, len(others))
        for other in self._random.sample(others, count):
            self.network.connect(device.id, other)

    def _neighbours(self, device: DeviceId) -> list[DeviceId]:
        pipes = self.network.hosts[device].pipes
        return [peer for peer in pipes if peer in self.devices]

    def want(self, device: Device, tree: Tree, *, at: float) -> None:
        """Let a device begin to update at a time; the run is not over before."""
        self._waiting += 1
        self.timeline.at(at, self._begin, device, tree)

    def _begin(self, device: Device, tree: Tree) -> None:
        self._waiting -= 1
        if not self.network.hosts[device.id].is_dead:
            device.want(tree)

    # -- faults ------------------------------------------------------------------------

    def cut_origin(self) -> None:
        """Let the origin be unreachable; devices notice at once."""
        for device in self.devices.values():
            device.lose_origin()

    def restore_origin(self) -> None:
        """Let the origin be reachable again."""
        for device in self.devices.values():
            device.regain_origin()

    # -- running -----------------------------------------------------------------------

    def run(self, seconds: float) -> Figures:
        """Run until every living device has what it wants, or time is up."""
        timeline = self.timeline
        while timeline.now < seconds and not self._is_over():
            timeline.run(min(timeline.now + _LOOK_SECONDS, seconds))
        return self.figures()

    def _is_over(self) -> bool:
        return not self._waiting and not any(map(self._is_late, self.devices.values()))

    def _is_late(self, device: Device) -> bool:
        is_open = device.finished is None and device.is_wanting
        return is_open and not self.network.hosts[device.id].is_dead

    def _wanting(self) -> list[Device]:
        hosts = self.network.hosts
        return [
            device
            for device in self.devices.values()
            if device.is_wanting and not hosts[device.id].is_dead
        ]

    def figures(self) -> Figures:
        """Return how it went so far."""
        done = [d.finished for d in self._wanting() if d.finished is not None]
        hosts = self.network.hosts
        tallies = [device.scheduler.tally for device in self.devices.values()]
        return Figures(
            seconds=max(done, default=0.0),
            first=min(done, default=0.0),
            finished=tuple(done),
            unfinished=len(self._wanting()) - len(done),
            sent={id_: hosts[id_].sent for id_ in self.devices},
            control=sum(hosts[id_].control for id_ in self.devices),
            duplicate=sum(tally.duplicate for tally in tallies),
            wan=hosts[self.origin.id].content if self.origin else 0,
        )


def fluid_bound(tree: Tree, *, up: float, down: float, takers: int) -> float:
    """Return the least time one holder and its takers need (Kumar and Ross 2006).

    Rates are those of links, headers included.
    """
    size = tree.bytes / GOODPUT
    return max(size / up, size / down, takers * size / (up * (takers + 1)))
