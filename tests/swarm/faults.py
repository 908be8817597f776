"""Sites in virtual time in which things go wrong, and who is kept waiting by it."""

from dataclasses import dataclass, field
from functools import partial
from random import Random

from p2p.ostree.objects import ObjectName
from p2p.sim.device import Device
from p2p.sim.site import MBIT, VirtualSite
from p2p.sim.tree import Tree, make_tree
from p2p.sim.villain import VILLAINS
from p2p.wire.messages import DeviceId
from tests.trees import KIB

RATE = 80 * MBIT
_LOOK_SECONDS = 0.05


@dataclass
class Watch:
    """Looks for objects that are offered to a device and do not come.

    Attributes:
        delays: for each device and object, how long an honest neighbour in session
            offered it before it came or the offer ended: the longest.

    """

    site: VirtualSite
    honest: dict[DeviceId, Device]
    worst: float = 0.0
    delays: dict[tuple[DeviceId, ObjectName], float] = field(default_factory=dict)
    _since: dict[tuple[DeviceId, ObjectName], float] = field(default_factory=dict)

    def look(self) -> None:
        now = self.site.timeline.now
        offered = {
            (device.id, name)
            for device in self.honest.values()
            if self._is_up(device) and device.finished is None
            for name in self._offered(device)
        }
        self._since = {key: self._since.get(key, now) for key in offered}
        for (device, name), since in self._since.items():
            key = device, name
            self.delays[key] = max(self.delays.get(key, 0.0), now - since)
            self.worst = max(self.worst, now - since)
        self.site.timeline.after(_LOOK_SECONDS, self.look)

    def _is_up(self, device: Device) -> bool:
        host = self.site.network.hosts[device.id]
        return not host.is_dead and not host.is_silent

    def _offered(self, device: Device) -> set[ObjectName]:
        """What a device misses and an honest neighbour in session has."""
        pipes = self.site.network.hosts[device.id].pipes
        givers = [
            self.honest[peer]
            for peer, pipe in pipes.items()
            if peer in self.honest and pipe.is_open and self._is_up(self.honest[peer])
        ]
        missing = device.scheduler.missing()
        return {n for n in missing if any(n in g.store.sizes for g in givers)}


def random_tree(rng: Random) -> Tree:
    small = [(f"small {k}", rng.randrange(20, 200 * KIB)) for k in range(40)]
    large = [
        (f"large {k}", rng.randrange(520 * KIB, 2000 * KIB))
        for k in range(rng.randrange(1, 5))
    ]
    return make_tree("chaos", small + large)


def random_site(seed: int, *, wan: float | None = None) -> Watch:
    """A site of some honest devices, some others, and faults to come."""
    rng = Random(seed)
    tree = random_tree(rng)
    site = VirtualSite(seed=seed, wan=wan)
    honest: dict[DeviceId, Device] = {}
    if site.origin is not None:
        site.origin.sizes.update(tree.sizes)
    for number in range(rng.randrange(1, 3)):
        villain = site.add(f"villain {number}", up=RATE, giver=rng.choice(VILLAINS))
        villain.put(tree)
    holder = site.add("holder", up=RATE)
    holder.put(tree)
    honest[holder.id] = holder
    if rng.random() < 0.5:
        slow = site.add("slow", up=RATE * rng.choice((0.001, 0.01, 0.1)), down=RATE)
        slow.put(tree)
    for number in range(rng.randrange(1, 4)):
        device = site.add(f"device {number}", up=RATE)
        share = rng.choice((0.0, 0.0, 0.5))
        for name, size in tree.sizes.items():
            if rng.random() < share:
                device.store.sizes[name] = size
        honest[device.id] = device
    site.connect()
    first, *others = list(honest.values())[1:]
    first.want(tree)
    for device in others:
        site.timeline.at(rng.random(), partial(device.want, tree))
    for _ in range(rng.randrange(4)):
        _plan_fault(site, rng, list(site.devices))
    watch = Watch(site, honest)
    watch.look()
    return watch


def _plan_fault(site: VirtualSite, rng: Random, ids: list[DeviceId]) -> None:
    network, timeline = site.network, site.timeline
    who = rng.choice(ids)
    time = rng.uniform(0.05, 3.0)
    match rng.randrange(4):
        case 0:
            timeline.at(time, lambda: network.kill(who))
        case 1 | 2:
            length = rng.choice((0.25, 0.5, 1.0, 4.0))
            for number in range(rng.randrange(1, 6)):
                begin = time + number * length * 2
                timeline.at(begin, lambda: network.silence(who))
                timeline.at(begin + length, lambda: network.resume(who))
        case 3:
            other = rng.choice([one for one in ids if one != who])
            timeline.at(time, lambda: network.reset(who, other))
