"""A scenario is built as it is said, and its faults happen."""

import pytest

from p2p.errors import ConfigError
from p2p.sim.fault import parse_faults
from p2p.sim.link import GOODPUT
from p2p.sim.report import Report, make_report
from p2p.sim.scenario import Rehearsal, Scenario
from p2p.sim.site import MBIT
from p2p.sim.tree import Tree, even_files, make_tree
from tests.trees import KIB, MIB

RATE = 80 * MBIT


def small_tree(count: int = 100) -> Tree:
    return make_tree("t", even_files("file", count, 40 * KIB))


def play(text: str = "", **options: object) -> tuple[Rehearsal, Report]:
    faults = parse_faults(text, "f")
    settings = {"tree": small_tree(), "devices": 4, "link": RATE, "faults": faults}
    rehearsal = Rehearsal(Scenario(**{**settings, **options}))  # type: ignore[arg-type]
    rehearsal.run()
    return rehearsal, make_report(rehearsal)


def test_the_bound_is_that_of_the_scarcest_link() -> None:
    tree = small_tree()
    size = tree.bytes / GOODPUT
    one = Scenario(tree=tree, devices=8, link=RATE)
    assert one.bound == pytest.approx(size / RATE)
    thin = Scenario(tree=tree, devices=8, holders=0, link=RATE, wan=10 * MBIT)
    assert thin.bound == pytest.approx(size / (10 * MBIT))
    slow = Scenario(tree=tree, devices=8, link=RATE, wan=1000 * MBIT)
    total = 8 * RATE + RATE + 1000 * MBIT
    assert slow.bound == pytest.approx(max(size / RATE, 8 * size / total))
    late = Scenario(tree=tree, devices=8, link=RATE, start=30)
    assert late.bound == pytest.approx(30 + size / RATE)


def test_a_quiet_site_gets_everything() -> None:
    _, report = play()
    assert report.unfinished == 0
    assert report.last is not None
    assert report.bound <= report.last < 10 * report.bound
    assert report.holder_copies is not None
    assert 0.99 < report.holder_copies < 4
    assert 0 < report.control_share < 0.1


def test_devices_that_begin_late_finish_late() -> None:
    rehearsal, report = play(start=20.0)
    done = [rehearsal.device(f"device-{k}").finished for k in (1, 2, 3, 4)]
    assert all(when is not None for when in done)
    assert done[0] is not None
    assert done[0] < 10
    assert report.last is not None
    assert report.last > 20


def test_who_is_killed_is_not_waited_for() -> None:
    rehearsal, report = play("10% kill device-2\n")
    assert rehearsal.device("device-2").finished is None
    assert report.unfinished == 0
    assert report.first is not None


def test_the_busiest_fetcher_can_be_killed() -> None:
    rehearsal, report = play("50% kill busiest\n", holders=0, wan=10 * MBIT)
    hosts = rehearsal.site.network.hosts
    dead = [name for id_, name in rehearsal.names.items() if hosts[id_].is_dead]
    assert len(dead) == 1
    assert report.unfinished == 0


def test_halves_that_are_cut_hear_nothing_of_each_other_until_they_are_healed() -> None:
    # The holder is in the first half.
    rehearsal, _ = play("0 cut\n30s heal\n")
    done = {name: rehearsal.device(name).finished for name in rehearsal.names.values()}
    first = done["device-1"]
    assert first is not None
    assert first < 10
    late = [done["device-2"], done["device-3"], done["device-4"]]
    assert all(when is not None and when > 30 for when in late)


def test_a_suspended_holder_is_waited_for() -> None:
    _, report = play("20% silence holder-1\n20s resume holder-1\n")
    assert report.unfinished == 0
    assert report.last is not None
    assert report.last > 20


def test_an_origin_that_is_away_is_waited_for() -> None:
    text = "10% origin-down\n20s origin-up\n"
    _, report = play(text, holders=0, wan=10 * MBIT)
    assert report.unfinished == 0
    assert report.last is not None
    assert report.last > 20
    assert report.wan_copies is not None
    assert report.wan_copies < 1.5


def test_what_is_lost_costs_time_and_nothing_else() -> None:
    _, lossy = play(loss=0.05)
    _, clean = play()
    assert lossy.unfinished == 0
    assert lossy.last is not None
    assert clean.last is not None
    assert clean.last < lossy.last < clean.last + 10


def test_a_rate_can_change() -> None:
    _, slow = play("50% rate origin 1mbit\n", holders=0, wan=10 * MBIT)
    _, usual = play(holders=0, wan=10 * MBIT)
    assert slow.last is not None
    assert usual.last is not None
    assert slow.last > 3 * usual.last


@pytest.mark.parametrize("text", ["0 villain silent\n", "20% villain idle\n"])
def test_a_villain_joins(text: str) -> None:
    rehearsal, report = play(f"{text}30% reset villain-1 device-1\n")
    assert rehearsal.device("villain-1").giver.watchers == {}
    assert report.unfinished == 0


@pytest.mark.parametrize(
    "line, reason",
    [
        ("1s origin-down", "there is no origin"),
        ("1s rate origin 1mbit", "there is no origin"),
        ("1s kill device-5", "there is no device-5"),
        ("1s kill holder-2", "there is no holder-2"),
        ("1s kill villain-1", "there is no villain-1"),
    ],
)
def test_a_fault_of_something_that_is_not_there_is_refused(
    line: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        play(f"{line}\n")
    assert caught.value.where == "f:1"


def test_a_large_site_has_as_many_sessions_as_are_said() -> None:
    tree = make_tree("t", [("large", MIB)])
    rehearsal = Rehearsal(Scenario(tree=tree, devices=29, link=RATE, degree=6))
    hosts = rehearsal.site.network.hosts.values()
    counts = [len(host.pipes) for host in hosts]
    assert max(counts) == 6
    assert sum(counts) >= 6 * 30 - 6


def test_a_dribbling_neighbour_gives_a_kilobyte_a_second_and_no_object() -> None:
    rehearsal, report = play("0s villain dribbling", holders=0, wan=10 * MBIT)
    villain = rehearsal.device("villain-1").id
    assert report.last is not None
    drops = 4 * (report.last + 1)
    assert 4000 <= rehearsal.site.network.hosts[villain].content <= 1000 * drops
