"""How much a site fetches from its origin and how long that takes, come what may."""

from collections.abc import Callable, Iterator
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.sim.site import MBIT, Figures, VirtualSite
from p2p.sim.tree import Tree, even_files, make_tree, system_files
from p2p.swarm import event as e
from p2p.wire.messages import DeviceId
from p2p.wire.record import Claim, commit_tag
from tests.swarm.rig import COMMIT, OTHER, Rig, files
from tests.swarm.test_ownership import owned, ranked
from tests.trees import KIB, MIB

WAN = 10 * MBIT
LAN = 80 * MBIT
TREE = make_tree("os", system_files("os", 400, 10 * MIB, Random(1)))
SECONDS = TREE.bytes / WAN


class Trial:
    """A site whose devices want a tree within some seconds, and its last WAN byte."""

    def __init__(
        self,
        count: int,
        *,
        tree: Tree = TREE,
        seed: int = 1,
        within: float = 0.0,
        wan: float = WAN,
    ) -> None:
        self.tree, self.seed, self.within = tree, seed, within
        self.site = VirtualSite(seed=seed, wan=wan)
        assert self.site.origin is not None
        self.site.origin.sizes.update(tree.sizes)
        self.origin = self.site.network.hosts[self.site.origin.id]
        self.devices = [self.site.add(f"d{k}", up=LAN) for k in range(count)]
        self.last = 0.0
        self._seen = 0
        self._look()

    def _look(self) -> None:
        if self.origin.content != self._seen:
            self._seen = self.origin.content
            self.last = self.site.timeline.now
        self.site.timeline.after(0.02, self._look)

    def meet(self) -> None:
        """Let all have sessions for a while, then want the tree."""
        self.site.connect()
        rng = Random(self.seed)
        for device in self.devices:
            start = 2.0 + rng.uniform(0, self.within)
            self.site.want(device, self.tree, at=start)

    def gather(self) -> None:
        """Let each want the tree when it starts, and sessions come up after that."""
        rng = Random(self.seed)
        starts = [rng.uniform(0, self.within) for _ in self.devices]
        for start, device in zip(starts, self.devices, strict=True):
            self.site.want(device, self.tree, at=start)
        for one, other in combinations(range(len(self.devices)), 2):
            up = max(starts[one], starts[other]) + rng.uniform(0.05, 0.5)
            ids = self.devices[one].id, self.devices[other].id
            self.site.timeline.at(up, self.site.network.connect, *ids)

    def run(self) -> Figures:
        figures = self.site.run(600)
        assert figures.unfinished == 0
        return figures

    def kill_busiest(self) -> None:
        """Kill who got most from the origin so far."""
        tallies = {d.id: d.scheduler.tally.origin for d in self.devices}
        self.site.network.kill(max(tallies, key=lambda device: tallies[device]))

    def halves(self) -> tuple[set[DeviceId], set[DeviceId]]:
        ids = sorted(device.id for device in self.devices)
        return set(ids[::2]), set(ids[1::2])

    def cut(self) -> None:
        self.site.network.cut(*self.halves())

    def lacking(self, half: set[DeviceId]) -> int:
        """Return the bytes that nobody of a half has."""
        stores = [self.site.devices[device].store.sizes for device in half]
        return sum(
            size
            for name, size in self.tree.sizes.items()
            if not any(name in store for store in stores)
        )


def test_eight_cold_devices_fetch_one_copy_and_are_through_with_the_last_byte() -> None:
    trial = Trial(8, within=1.0)
    trial.meet()
    figures = trial.run()
    assert figures.wan <= 1.02 * TREE.bytes
    assert figures.seconds <= trial.last + 2


def test_the_busiest_fetcher_is_killed_at_half_time() -> None:
    trial = Trial(8)
    trial.meet()
    trial.site.timeline.at(2 + SECONDS / 2, trial.kill_busiest)
    assert trial.run().wan <= 1.05 * TREE.bytes


def test_a_lan_is_cut_in_two_and_healed() -> None:
    trial = Trial(8)
    trial.meet()
    trial.site.timeline.at(2 + SECONDS / 2, trial.cut)
    trial.site.timeline.at(2 + 0.8 * SECONDS, trial.site.network.heal)
    assert trial.run().wan <= 1.1 * TREE.bytes


def test_two_halves_that_never_meet_again_fetch_what_each_lacks() -> None:
    trial = Trial(8)
    trial.meet()
    lacked: list[int] = []

    def cut() -> None:
        lacked.extend(trial.lacking(half) for half in trial.halves())
        lacked.append(trial.origin.content)
        trial.cut()

    trial.site.timeline.at(2 + SECONDS / 2, cut)
    figures = trial.run()
    assert figures.wan - lacked[2] <= 1.02 * (lacked[0] + lacked[1])


def test_many_devices_leave_the_origin_to_a_few() -> None:
    tree = make_tree("even", even_files("even", 150, 33 * KIB))
    trial = Trial(24, tree=tree, wan=20 * MBIT, within=0.5)
    trial.meet()
    # Some begin before the first have been heard of.
    assert trial.run().wan <= 1.02 * tree.bytes + 8 * 33 * KIB
    fetched = sorted(d.scheduler.tally.origin for d in trial.devices)
    assert sum(fetched[-8:]) >= 0.8 * tree.bytes


@pytest.mark.parametrize("seed", range(5))
def test_few_devices_that_meet_while_they_fetch_a_small_tree(seed: int) -> None:
    tree = make_tree("small", system_files("small", 110, 3 * MIB, Random(seed)))
    trial = Trial(5, tree=tree, seed=seed, within=1.0)
    trial.gather()
    assert trial.run().wan <= 1.06 * tree.bytes


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_each_fault_costs_little_and_all_finish(seed: int) -> None:
    rng = Random(seed)
    tree = make_tree("any", system_files("any", 150, 4 * MIB, rng))
    trial = Trial(rng.randrange(3, 13), tree=tree, seed=seed, within=rng.uniform(0, 2))
    rng.choice([trial.meet, trial.gather])()
    faults = rng.sample(list(_faults(trial)), 2)
    for fault in faults:
        at = rng.uniform(1, 5)
        trial.site.timeline.at(at, fault[0])
        trial.site.timeline.at(at + rng.uniform(0.5, 5), fault[1])
    figures = trial.run()
    # What was on its way when it happened, and the largest object once more.
    each = max(tree.sizes.values()) + len(trial.devices) * 300 * KIB
    assert figures.wan <= 1.06 * tree.bytes + 2 * each


def _faults(
    trial: Trial,
) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    network = trial.site.network
    victim = trial.devices[-1].id
    yield trial.kill_busiest, lambda: None
    yield trial.cut, network.heal
    yield trial.site.cut_origin, trial.site.restore_origin
    yield lambda: network.silence(victim), lambda: network.resume(victim)


# -- one owner -------------------------------------------------------------------------

IDS = [DeviceId(f"{k:064x}") for k in range(1, 21)]
NAMES = {COMMIT: files(60) + files(40, "both"), OTHER: files(40, "both")}


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(IDS),
        st.sets(st.sampled_from([COMMIT, OTHER]), min_size=1).map(sorted),
        min_size=1,
    )
)
def test_with_equal_views_each_object_has_one_owner_that_wants_it(
    wants: dict[DeviceId, list[object]],
) -> None:
    owners: dict[object, list[DeviceId]] = {}
    for me, commits in wants.items():
        rig = Rig()
        rig.parts.site.me = me
        for commit, names in NAMES.items():
            if commit in commits:
                rig.want(names, commit)
        for other, theirs in wants.items():
            tags = tuple(commit_tag(commit) for commit in NAMES if commit in theirs)
            if other != me:
                claim = Claim(wants=tags, origin=e.OriginState.OK)
                rig.tell(e.MemberSaid(other, claim))
        ranked(rig)
        for name in rig.parts.site.catalogue.names_of(owned(rig)):
            owners.setdefault(name, []).append(me)
    for commit, names in NAMES.items():
        takers = [me for me, commits in wants.items() if commit in commits]
        for name in names if takers else ():
            first = owners[name]
            assert first, "somebody fetches it unasked"
            if all(commits == wants[takers[0]] for commits in wants.values()):
                assert len(first) == 1
