"""Sites of real agents that update at once, and what it costs."""

from pathlib import Path

import pytest

from tests.lab.__main__ import even_tree
from tests.lab.faults import Fault, KillBusiest, count_uplink
from tests.lab.trial import Plan, run_trial
from tests.trees import MIB

pytestmark = pytest.mark.root


@pytest.mark.parametrize("objects", [2, 300], ids=["large", "small"])
def test_a_holder_gives_about_one_copy(tmp_path: Path, objects: int) -> None:
    even_tree(tmp_path / "tree", objects=objects, size=12 * MIB)
    plan = Plan(devices=4, link="40mbit", wan="10mbit")
    figures = run_trial(plan, tmp_path, tmp_path / "tree")
    assert figures.unfinished == 0
    # A busy machine may have a device ask again; four copies would be no swarm.
    assert figures.holder_copies < 1.6
    assert figures.wan_copies < 0.2


def test_a_fetcher_that_is_killed_costs_little_more_than_a_copy(
    tmp_path: Path,
) -> None:
    even_tree(tmp_path / "tree", objects=300, size=12 * MIB)
    plan = Plan(devices=4, holders=0, link="40mbit", wan="10mbit")
    kill = KillBusiest(0.5)
    faults: list[Fault] = [count_uplink, kill]
    figures = run_trial(plan, tmp_path, tmp_path / "tree", at=faults)
    assert kill.victim
    assert figures.unfinished == 0
    assert figures.wan_copies < 1.25
