"""The scheduler of every device of a site, in virtual time over a virtual network."""

import os
import subprocess
import sys
from random import Random

import pytest

from p2p.sim.link import GOODPUT
from p2p.sim.site import MBIT, Figures, VirtualSite, fluid_bound
from p2p.sim.tree import Tree, even_files, make_tree, system_files
from p2p.wire.limits import UNIT_BYTES
from tests.trees import KIB, MIB

RATE = 80 * MBIT


def small_tree(label: str = "a", files: int = 60, size: int = 40 * KIB) -> Tree:
    return make_tree(label, even_files("file", files, size))


def mixed_tree(label: str = "os", total: int = 5 * MIB) -> Tree:
    return make_tree(label, system_files("os", 400, total, Random(1)))


def publish(site: VirtualSite, tree: Tree) -> None:
    """Let the origin have a commit."""
    assert site.origin is not None
    site.origin.sizes.update(tree.sizes)


def run(site: VirtualSite, seconds: float = 600) -> Figures:
    figures = site.run(seconds)
    assert figures.unfinished == 0
    return figures


def large_tree() -> Tree:
    return make_tree("large", even_files("large", 4, 8 * MIB))


@pytest.mark.parametrize("rate", [10 * MBIT, RATE], ids=["slow", "fast"])
@pytest.mark.parametrize(
    "tree",
    [large_tree(), small_tree(files=800), mixed_tree(total=32 * MIB)],
    ids=["large", "even", "system"],
)
def test_a_holder_gives_each_thing_once_and_its_uplink_is_the_bound(
    tree: Tree, rate: float
) -> None:
    site = VirtualSite(seed=1)
    holder = site.add("holder", up=rate)
    holder.put(tree)
    for number in range(8):
        site.add(f"device {number}", up=rate).want(tree)
    site.connect()
    figures = run(site)
    bound = fluid_bound(tree, up=rate, down=rate, takers=8)
    # Beginning and end cost what all links together need for some units each.
    assert figures.seconds < 1.05 * bound + 40 * UNIT_BYTES / rate
    assert figures.sent[holder.id] < 1.02 * tree.bytes / GOODPUT


def test_three_cold_devices_fetch_about_one_copy_from_the_origin() -> None:
    tree = mixed_tree()
    site = VirtualSite(seed=2, wan=10 * MBIT)
    publish(site, tree)
    for number in range(3):
        site.add(f"device {number}", up=RATE).want(tree)
    site.connect()
    figures = run(site)
    assert figures.wan <= 1.3 * tree.bytes


def test_a_device_that_joins_late_takes_nothing_from_the_origin() -> None:
    tree = small_tree()
    site = VirtualSite(seed=3, wan=10 * MBIT)
    publish(site, tree)
    site.add("holder", up=RATE).put(tree)
    site.add("late", up=RATE).want(tree)
    site.connect()
    assert run(site).wan < 0.1 * tree.bytes


def test_what_two_commits_share_is_fetched_once() -> None:
    files = even_files("common", 96, 40 * KIB)
    one = make_tree("one", files + even_files("one", 24, 40 * KIB))
    two = make_tree("two", files + even_files("two", 24, 40 * KIB))
    site = VirtualSite(seed=4, wan=10 * MBIT)
    publish(site, one)
    publish(site, two)
    site.add("first", up=RATE).want(one)
    site.add("second", up=RATE).want(two)
    site.connect()
    union = sum((one.sizes | two.sizes).values())
    assert run(site).wan <= 1.3 * union


@pytest.mark.parametrize("fault", ["kill", "silence"])
def test_a_neighbour_that_goes_away_costs_nobody_the_update(fault: str) -> None:
    tree = mixed_tree()
    site = VirtualSite(seed=5, wan=20 * MBIT)
    publish(site, tree)
    holder = site.add("holder", up=RATE)
    holder.put(tree)
    for number in range(3):
        site.add(f"device {number}", up=RATE).want(tree)
    site.connect()
    act = getattr(site.network, fault)
    site.timeline.after(0.5, lambda: act(holder.id))
    run(site)


def test_a_suspended_neighbour_comes_back() -> None:
    tree = mixed_tree()
    site = VirtualSite(seed=6, wan=5 * MBIT)
    publish(site, tree)
    holder = site.add("holder", up=RATE)
    holder.put(tree)
    site.add("device", up=RATE).want(tree)
    site.connect()
    site.timeline.after(0.3, lambda: site.network.silence(holder.id))
    site.timeline.after(3.0, lambda: site.network.resume(holder.id))
    run(site)


def test_without_an_origin_the_site_waits_and_goes_on_when_it_is_back() -> None:
    tree = small_tree()
    site = VirtualSite(seed=7, wan=10 * MBIT)
    publish(site, tree)
    for number in range(3):
        site.add(f"device {number}", up=RATE).want(tree)
    site.connect()
    site.timeline.after(0.5, site.cut_origin)
    site.timeline.after(20.0, site.restore_origin)
    figures = run(site)
    assert figures.seconds > 20
    assert figures.wan <= 1.3 * tree.bytes


def test_many_devices_finish_and_hardly_repeat_anything() -> None:
    tree = small_tree(files=40)
    site = VirtualSite(seed=8)
    site.add("holder", up=RATE).put(tree)
    for number in range(9):
        site.add(f"device {number}", up=RATE).want(tree)
    site.connect()
    figures = run(site)
    assert figures.duplicate <= 0.02 * 9 * tree.bytes


_TRACE = """
from tests.swarm.test_virtual_site import *
site = VirtualSite(seed=9, wan=10 * MBIT)
tree = mixed_tree(total=4 * MIB)
publish(site, tree)
for number in range(4):
    site.add(f"device {number}", up=RATE).want(tree)
site.connect()
print(run(site))
"""


def test_equal_seeds_give_equal_runs_whatever_the_hash_seed() -> None:
    runs = {
        subprocess.run(
            [sys.executable, "-c", _TRACE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(runs) == 1
