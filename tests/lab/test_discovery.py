"""Many real agents that see each other's link at the same moment."""

import pytest

from p2p.swarm.overlay import CHOSEN, MOST_SESSIONS, RING_EACH
from tests.lab.discovery import Discovered, discover

pytestmark = pytest.mark.root


def check(found: Discovered) -> None:
    """One site, and no agent with many sessions; times and packets are for people."""
    assert found.parts == 1
    assert found.fewest >= min(2 * RING_EACH + CHOSEN, found.agents - 1)
    assert found.most <= MOST_SESSIONS
    assert found.packets <= 20 * found.agents + 1000


def test_twenty_agents_find_each_other() -> None:
    check(discover(20))


@pytest.mark.long
def test_a_hundred_agents_find_each_other() -> None:
    check(discover(100, seconds=240))
