"""Neighbours that leave, sleep, stall or lie do not keep an object from anybody."""

import pytest

from p2p.sim.site import MBIT
from tests.swarm.faults import Watch, random_site

# How long an object that an honest neighbour in session has may take to come: two
# liars in a row, or one that speaks and gives nothing, and one that slept.
LONGEST_DELAY = 3.0
# By itself each of these sites is through in a few seconds.
ENOUGH_SECONDS = 60.0


def check(watch: Watch) -> None:
    watch.site.run(ENOUGH_SECONDS)
    assert watch.worst <= LONGEST_DELAY
    for device in watch.honest.values():
        assert not device.banned.keys() & watch.honest.keys()


@pytest.mark.parametrize("seed", range(40))
def test_what_an_honest_neighbour_offers_comes_soon(seed: int) -> None:
    check(random_site(seed))


@pytest.mark.parametrize("seed", range(20))
def test_with_an_origin_all_finish(seed: int) -> None:
    watch = random_site(1000 + seed, wan=5 * MBIT)
    check(watch)
    assert watch.site.figures().unfinished == 0
