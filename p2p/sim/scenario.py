"""A site to simulate, as a user says it, made into one that runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from p2p.errors import ConfigError
from p2p.sim.device import Device
from p2p.sim.fault import (
    BUSIEST,
    ORIGIN,
    RANDOM,
    VILLAIN_KINDS,
    Fault,
    Mishap,
)
from p2p.sim.link import GOODPUT
from p2p.sim.site import VirtualSite
from p2p.sim.tree import Tree
from p2p.wire.messages import DeviceId

# Beyond this nothing more is expected to come.
_PATIENCE = 20
_LEAST_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated.

    Attributes:
        tree: the commit that everybody wants.
        devices, holders: how many lack it, and have it from the start.
        link: bytes/s of every device's uplink and of its downlink, headers included.
        wan: bytes/s of the origin, which has the commit; None: there is none.
        latency: seconds from one device to another.
        loss: the chance of 64 KiB, or of a message, to be lost and sent again.
        start: seconds over which the devices begin, one after the other.
        degree: sessions of a device, where the site has more devices than that.

    """

    tree: Tree
    devices: int = 8
    holders: int = 1
    seed: int = 1
    link: float
    wan: float | None = None
    latency: float = 0.0005
    loss: float = 0.0
    start: float = 0.0
    degree: int = 16
    faults: tuple[Fault, ...] = ()

    @property
    def bound(self) -> float:
        """The least seconds in which fluids would be everywhere (Kumar and Ross 2006).

        Whoever gives is as fast as all holders and the origin together. The last to
        begin needs its own downlink's time at least.
        """
        size = self.tree.bytes / GOODPUT
        source = self.holders * self.link + (self.wan or 0.0)
        together = self.devices * size / (source + self.devices * self.link)
        alone = size / self.link + self.start
        return max(size / source, alone, together)


class Rehearsal:
    """A scenario's site, ready to run.

    Attributes:
        names: what devices are called, by id; faults may add some.

    """

    def __init__(self, scenario: Scenario) -> None:
        """Build the site.

        Raises:
            ConfigError: a fault is about something that is not there.

        """
        self.scenario = scenario
        self.site = VirtualSite(
            seed=scenario.seed,
            latency=scenario.latency,
            wan=scenario.wan,
            loss=scenario.loss,
        )
        self._random = Random(scenario.seed)  # noqa: S311 - equal seeds, equal runs
        self._devices: dict[str, Device] = {}
        self.names: dict[DeviceId, str] = {}
        self._villains = 0
        if self.site.origin is not None:
            self.site.origin.sizes |= scenario.tree.sizes
        for number in range(scenario.holders):
            self._add(f"holder-{number + 1}").put(scenario.tree)
        takers = [self._add(f"device-{k + 1}") for k in range(scenario.devices)]
        later = [self._plan(fault) for fault in scenario.faults]
        self.site.connect(scenario.degree)
        self._begin(takers)
        for fault, act in zip(scenario.faults, later, strict=True):
            self.site.timeline.at(fault.at(scenario.bound), act)

    def device(self, name: str) -> Device:
        """Return a device by its name."""
        return self._devices[name]

    def run(self) -> None:
        """Run until everybody who lives has the commit, or nothing more will come."""
        bound = self.scenario.bound
        last = max((f.at(bound) for f in self.scenario.faults), default=0.0)
        self.site.run(last + max(_PATIENCE * bound, _LEAST_SECONDS))

    def _add(self, name: str) -> Device:
        return self._know(name, self.site.add(name, up=self.scenario.link))

    def _know(self, name: str, device: Device) -> Device:
        self._devices[name] = device
        self.names[device.id] = name
        return device

    def _begin(self, takers: list[Device]) -> None:
        step = self.scenario.start / max(len(takers) - 1, 1)
        for number, device in enumerate(takers):
            self.site.want(device, self.scenario.tree, at=number * step)

    # -- faults ------------------------------------------------------------------------

    def _plan(self, fault: Fault) -> Callable[[], None]:
        """Return what a fault does when its time comes."""
        site = self.site
        match fault.mishap:
            case Mishap.ORIGIN_DOWN | Mishap.ORIGIN_UP if site.origin is None:
                raise ConfigError(
                    fault.where, "there is no origin", hint="Give --wan=RATE too."
                )
            case Mishap.ORIGIN_DOWN:
                return site.cut_origin
            case Mishap.ORIGIN_UP:
                return site.restore_origin
            case Mishap.CUT:
                return self._cut
            case Mishap.HEAL:
                return site.network.heal
            case Mishap.VILLAIN:
                self._villains += 1
                name = f"villain-{self._villains}"
                return self._add_villain(name, fault)
        for name in fault.who:
            self._check(name, fault)
        return partial(self._strike, fault)

    def _check(self, name: str, fault: Fault) -> None:
        if name == ORIGIN and self.site.origin is None:
            raise ConfigError(
                fault.where, "there is no origin", hint="Give --wan=RATE too."
            )
        villains = {f"villain-{k + 1}" for k in range(self._villains)}
        if name not in {*self._devices, *villains, BUSIEST, RANDOM, ORIGIN}:
            raise ConfigError(
                fault.where,
                f"there is no {name}",
                hint=f"Devices: {self.scenario.devices}. Holders: "
                f"{self.scenario.holders}. A villain is known from its line on.",
            )

    def _add_villain(self, name: str, fault: Fault) -> Callable[[], None]:
        """Add a neighbour that claims to have everything, now or at its time."""
        if fault.time == 0:
            self._add_giver(name, fault.kind)
            return _nothing
        return partial(self._join, name, fault.kind)

    def _add_giver(self, name: str, kind: str) -> Device:
        giver = VILLAIN_KINDS[kind]
        device = self.site.add(name, up=self.scenario.link, giver=giver)
        self._know(name, device).put(self.scenario.tree)
        return device

    def _join(self, name: str, kind: str) -> None:
        self.site.join(self._add_giver(name, kind), self.scenario.degree)

    def _cut(self) -> None:
        """Part the first half of all devices from the second."""
        ids = [device.id for device in self._devices.values()]
        self.site.network.cut(ids[: len(ids) // 2], ids[len(ids) // 2 :])

    def _strike(self, fault: Fault) -> None:
        network = self.site.network
        if fault.who == (ORIGIN,):
            assert self.site.origin is not None  # noqa: S101 - checked when planned
            network.hosts[self.site.origin.id].up = fault.rate
            return
        who = [self._find(name).id for name in fault.who]
        match fault.mishap:
            case Mishap.KILL:
                network.kill(who[0])
            case Mishap.SILENCE:
                network.silence(who[0])
            case Mishap.RESUME:
                network.resume(who[0])
            case Mishap.RESET if who[0] in network.hosts[who[1]].pipes:
                network.reset(who[0], who[1])
            case Mishap.RATE:
                network.hosts[who[0]].up = network.hosts[who[0]].down = fault.rate

    def _find(self, name: str) -> Device:
        hosts = self.site.network.hosts
        takers = [
            device
            for device in self._devices.values()
            if device.is_wanting and not hosts[device.id].is_dead
        ]
        if name == BUSIEST and takers:
            return max(takers, key=lambda device: device.scheduler.tally.origin)
        if name == RANDOM and takers:
            return self._random.choice(takers)
        return self._devices.get(name) or next(iter(self._devices.values()))


def _nothing() -> None:
    """Do nothing: it is there from the start."""
