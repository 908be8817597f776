"""Who meets whom in sites of many sizes: real overlays, sessions in memory."""

import random
from collections import Counter
from collections.abc import Iterable
from math import inf

import pytest

from p2p.swarm.overlay import (
    CHOSEN,
    MESH_MEMBERS,
    MOST_SESSIONS,
    MOST_STRANGERS,
    RING_EACH,
    End,
    Overlay,
)

SETTLED_SECONDS = 600.0
STEP_SECONDS = 0.05


def name(number: int) -> bytes:
    """An id; they are spread as those of agents are."""
    return random.Random(number).randbytes(16)


class Virtual:
    """Devices whose sessions come up at once.

    Attributes:
        now: seconds.
        dead: devices that answer nobody.
        counts: what happened.

    """

    def __init__(self, seed: int = 1) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.devices: dict[bytes, Overlay] = {}
        self.dead: set[bytes] = set()
        self.busy: set[frozenset[bytes]] = set()
        self.links: set[frozenset[bytes]] = set()
        self.counts: Counter[str] = Counter()

    def add(self, who: bytes) -> Overlay:
        overlay = Overlay(who, random.Random(self.rng.random()))
        self.devices[who] = overlay
        return overlay

    def introduce(self, one: bytes, other: bytes, wait: float = 0.0) -> None:
        self.devices[one].found(other, self.now + wait)

    def join(self, who: bytes) -> None:
        """Have a device come that everybody hears of, a second before it dials."""
        self.add(who)
        for other in list(self.devices):
            if other != who and other not in self.dead:
                self.introduce(who, other, 0.2)
                self.introduce(other, who, 1.2)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            for who in sorted(self.devices.keys() - self.dead):
                for other in self.devices[who].dials(self.now):
                    self._dial(who, other)
                self._trim(who)
            times = [
                self.devices[who].next_time(self.now)
                for who in self.devices.keys() - self.dead
            ]
            if min(times, default=inf) > end:
                self.now = end
                return
            self.now = max(min(times), self.now + STEP_SECONDS)

    def _dial(self, who: bytes, other: bytes) -> None:
        self.counts["dials"] += 1
        link = frozenset((who, other))
        if other in self.dead:
            self.devices[who].dialled(other, End.FAILED, self.now)
            return
        admission = self.devices[other].admit(who, self._spare(other), ours=False)
        if not admission.is_granted:
            self.counts["refused"] += 1
            self.devices[who].dialled(other, End.REFUSED, self.now)
            return
        if admission.instead_of is not None:
            self.end(other, admission.instead_of)
        self.devices[who].dialled(other, End.MET, self.now)
        self.devices[who].up(other, ours=True)
        self.devices[other].up(who, ours=False)
        self.links.add(link)

    def _trim(self, who: bytes) -> None:
        surplus = self.devices[who].superfluous(self._spare(who))
        if surplus is not None:
            self.end(who, surplus)

    def _spare(self, who: bytes) -> list[bytes]:
        links = self.links - self.busy
        return [other for link in links if who in link for other in link - {who}]

    def end(self, one: bytes, other: bytes) -> None:
        self.counts["ended"] += 1
        self.links.remove(frozenset((one, other)))
        for a, b in ((one, other), (other, one)):
            self.devices[a].down(b, End.REFUSED, self.now)

    def kill(self, who: bytes) -> None:
        """End a device without a word; the others find out."""
        self.dead.add(who)
        for link in [link for link in self.links if who in link]:
            self.links.remove(link)
            (other,) = link - {who}
            self.devices[other].down(who, End.MET, self.now)

    def degrees(self) -> list[int]:
        return [self.degree(who) for who in self.devices.keys() - self.dead]

    def degree(self, who: bytes) -> int:
        return sum(who in link for link in self.links)

    def is_connected(self, members: Iterable[bytes] | None = None) -> bool:
        left = set(self.devices.keys() - self.dead if members is None else members)
        reached = {left.pop()}
        edge = set(reached)
        while edge:
            edge = {o for link in self.links for o in link if link & edge} & left
            left -= edge
        return not left


def together(count: int, seed: int = 1) -> Virtual:
    """Devices that all start at once and hear of each other within two seconds."""
    site = Virtual(seed)
    names = [name(seed * 10_000 + n) for n in range(count)]
    for who in names:
        site.add(who)
    for who in names:
        for other in names:
            if who != other:
                site.introduce(who, other, 1 + site.rng.uniform(0, 2))
    return site


@pytest.mark.parametrize("count", [2, 5, MESH_MEMBERS + 1])
def test_in_a_small_site_everybody_meets_everybody(count: int) -> None:
    site = together(count)
    site.run(10)
    assert set(site.degrees()) == {count - 1}
    assert site.counts["dials"] == count * (count - 1) / 2


@pytest.mark.parametrize("count", [MESH_MEMBERS + 2, 40, 100])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_a_large_site_each_meets_about_sixteen(count: int, seed: int) -> None:
    site = together(count, seed)
    site.run(10)
    degrees = site.degrees()
    assert site.is_connected()
    assert min(degrees) >= 2 * RING_EACH + CHOSEN
    assert max(degrees) <= MOST_SESSIONS
    assert 14 <= sum(degrees) / count <= 18
    # Nothing moves any more, and little was in vain.
    before = site.counts.copy()
    site.run(SETTLED_SECONDS)
    assert site.counts == before
    assert site.counts["dials"] <= 10 * count


def test_the_ring_alone_connects_a_site() -> None:
    site = together(60)
    site.run(10)
    for who, device in site.devices.items():
        for other in device.ring():
            assert frozenset((who, other)) in site.links
    site.links = {
        frozenset((who, other))
        for who, device in site.devices.items()
        for other in device.ring()
    }
    assert site.is_connected()


@pytest.mark.parametrize("seed", [1, 2])
def test_who_comes_one_after_the_other_finds_room(seed: int) -> None:
    site = Virtual(seed)
    for number in range(70):
        site.join(name(seed * 1000 + number))
        site.run(5)
        assert site.is_connected()
        assert max(site.degrees()) <= MOST_SESSIONS
    assert min(site.degrees()) >= 2 * RING_EACH + CHOSEN
    assert sum(site.degrees()) / 70 <= MOST_SESSIONS
    assert site.counts["refused"] < 2 * site.counts["dials"] / 3
    site.run(SETTLED_SECONDS)
    before = site.counts.copy()
    site.run(SETTLED_SECONDS)
    assert site.counts == before


def test_those_that_die_are_replaced() -> None:
    site = together(60)
    site.run(10)
    for who in site.rng.sample(sorted(site.devices), 30):
        site.kill(who)
    site.run(10)
    assert site.is_connected()
    assert min(site.degrees()) >= 2 * RING_EACH + CHOSEN
    # Whoever is heard of no more is not dialled again.
    for who, device in site.devices.items():
        for dead in site.dead - {who}:
            device.lost(dead)
    site.run(10)
    before = site.counts.copy()
    site.run(SETTLED_SECONDS)
    assert site.counts == before


def test_a_crowd_of_dead_names_keeps_nobody_from_the_living() -> None:
    site = together(30)
    dead = [name(-n) for n in range(1, 300)]
    for who in dead:
        site.add(who)
        site.dead.add(who)
        for device in site.devices.keys() - site.dead:
            site.introduce(device, who)
    site.run(60)
    assert site.is_connected()
    assert min(site.degrees()) >= 2 * RING_EACH + CHOSEN


def full(*, busy: bool = False) -> tuple[Virtual, bytes]:
    """A device that has all the sessions it takes, from others that chose it."""
    site = Virtual()
    me = name(0)
    site.add(me)
    for number in range(1, MOST_SESSIONS + 1):
        who = name(number)
        site.add(who)
        site.introduce(me, who, inf)
        site.introduce(who, me)
    site.run(1)
    assert site.degree(me) == MOST_SESSIONS
    if busy:
        site.busy = set(site.links)
    return site, me


def neighbour_of(who: bytes) -> bytes:
    return (int.from_bytes(who) + 1).to_bytes(16)


@pytest.mark.parametrize("busy", [False, True])
def test_who_is_next_in_the_ring_always_finds_room(busy: bool) -> None:
    site, me = full(busy=busy)
    ring = site.devices[me].ring()
    newcomer = neighbour_of(me)
    site.add(newcomer)
    site.introduce(me, newcomer, inf)
    site.introduce(newcomer, me)
    site.run(1)
    assert frozenset((me, newcomer)) in site.links
    assert site.degree(me) <= MOST_SESSIONS + busy
    others = ring & site.devices[me].ring()
    assert len(others) == 3
    assert all(frozenset((me, other)) in site.links for other in others)


def test_others_are_refused_by_who_is_full_and_do_not_insist() -> None:
    site, me = full()
    far = bytes(b ^ 0x80 for b in me)
    site.add(far)
    site.introduce(me, far, inf)
    site.introduce(far, me)
    site.run(60)
    assert frozenset((me, far)) not in site.links
    assert 1 <= site.counts["refused"] <= 7


def test_who_is_known_by_nobody_else_is_not_sent_away() -> None:
    site, me = full()
    hub = site.devices[me]
    for number in range(MOST_STRANGERS):
        who = name(10_000 + number)
        assert hub.admit(who, [], ours=False).is_granted
        hub.up(who, ours=False)
    assert not hub.admit(name(9_999), [], ours=False).is_granted
    assert hub.admit(name(9_999), [], ours=True).is_granted
    # Once it is heard of it is one of many.
    hub.found(name(10_000), inf)
    assert hub.superfluous([name(10_000)]) == name(10_000)
