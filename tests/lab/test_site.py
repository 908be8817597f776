"""A site of real devices behind a thin link, whatever happens to it."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.site import Device, Site, check_all, open_site, until
from tests.pulls import REF
from tests.trees import MIB, change_files, random_tree

pytestmark = pytest.mark.root
# A small tree: who begins before it knows the others fetches a large part of it.
MAX_COPIES = 1.5


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, uplink="10mbit", lan="80mbit") as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    random_tree(path, seed=7, files=400, size=6 * MIB)
    return path


def until_all_have(devices: Sequence[Device], commit: str) -> None:
    until(
        lambda: all(device.has(commit) for device in devices),
        lambda: [(d.host.name, d.share_here, d.last, d.log) for d in devices],
    )


def test_five_devices_fetch_what_one_would_fetch(site: Site, tree: Path) -> None:
    commit = site.publisher.commit(tree)
    copy = site.pull_by_stock(REF)
    devices = site.devices(5)
    before = site.uplink_bytes()
    for device in devices:
        device.start_agent(site)
    until_all_have(devices, commit)
    copies = (site.uplink_bytes() - before) / copy
    check_all(devices, commit)
    assert copies <= MAX_COPIES


def test_who_joins_late_draws_on_those_who_are_nearly_done(
    site: Site, tree: Path
) -> None:
    commit = site.publisher.commit(tree)
    devices, late = site.devices(3), site.device("late")
    for device in devices:
        device.start_agent(site)
    until(lambda: any(device.share_here >= 0.9 for device in devices))
    late.start_agent(site)
    devices.append(late)
    until_all_have(devices, commit)
    check_all(devices, commit)
    until(late.has_pulled)
    assert late.last["peer_bytes"] > 10 * late.last["origin_bytes"]


def test_two_commits_share_what_they_have_in_common(site: Site, tree: Path) -> None:
    one = site.publisher.commit(tree, "os/one")
    change_files(tree, seed=8, files=80)
    two = site.publisher.commit(tree, "os/two")
    copy = site.pull_by_stock("os/one", "os/two")
    devices = site.devices(4)
    before = site.uplink_bytes()
    for device, ref in zip(devices, ("os/one", "os/two") * 2, strict=True):
        device.start_agent(site, ref=ref)
    until_all_have(devices[::2], one)
    until_all_have(devices[1::2], two)
    copies = (site.uplink_bytes() - before) / copy
    check_all(devices[::2], one)
    check_all(devices[1::2], two)
    assert copies <= MAX_COPIES


def test_an_uplink_that_swallows_everything_leaves_it_to_a_neighbour(
    site: Site, tree: Path
) -> None:
    commit = site.publisher.commit(tree)
    devices, holder = site.devices(3), site.holder("holder")
    for device in devices:
        device.start_agent(site)
    until(lambda: all(device.share_here >= 0.2 for device in devices))
    site.lose_uplink()
    assert not any(device.has(commit) for device in devices)
    holder.serve()
    until_all_have(devices, commit)
    check_all(devices, commit)


def test_an_origin_that_crashes_and_comes_back_is_gone_on_with(
    site: Site, tree: Path
) -> None:
    commit = site.publisher.commit(tree)
    devices = site.devices(3)
    for device in devices:
        device.start_agent(site)
    until(lambda: any(device.share_here >= 0.4 for device in devices))
    site.stop_origin()
    assert not any(device.has(commit) for device in devices)
    site.start_origin()
    until_all_have(devices, commit)
    check_all(devices, commit)


class Leaving:
    """Two holders and three devices that draw on them; one of each leaves."""

    def __init__(self, site: Site, tree: Path) -> None:
        self.commit = site.publisher.commit(tree)
        self.staying = [site.device("stay0"), site.device("stay1")]
        self.leaving = site.device("leave")
        holders = [site.holder("hold0"), site.holder("hold1")]
        for holder in holders:
            holder.serve()
        self.victims = [holders[0], self.leaving]
        for device in (*self.staying, self.leaving):
            device.start_pull("--no-origin")
        until(lambda: self.leaving.host.received_bytes() > MIB)
        assert not self.leaving.has(self.commit)

    def check_others(self) -> None:
        """Check that those who stay are not kept from finishing."""
        for device in self.staying:
            device.pulled()
        assert not self.leaving.has(self.commit)
        check_all(self.staying, self.commit)

    def check_leaver(self) -> None:
        """Check that the one who left finishes once it is back."""
        self.leaving.pulled()
        check_all([self.leaving], self.commit)


@pytest.fixture
def leaving(tmp_path: Path, tree: Path) -> Iterator[Leaving]:
    with open_site(tmp_path, uplink="10mbit", lan="16mbit") as site:
        yield Leaving(site, tree)


def test_neighbours_that_are_killed(leaving: Leaving) -> None:
    for victim in leaving.victims:
        victim.kill()
    leaving.check_others()
    leaving.leaving.start_pull("--no-origin")
    leaving.check_leaver()


def test_neighbours_that_lose_power(leaving: Leaving) -> None:
    for victim in leaving.victims:
        # Unplugged first, so that nobody hears the end of what is killed.
        victim.host.unplug()
        victim.kill()
    leaving.check_others()
    leaving.leaving.host.plug()
    leaving.leaving.start_pull("--no-origin")
    leaving.check_leaver()


def test_neighbours_that_are_suspended(leaving: Leaving) -> None:
    for victim in leaving.victims:
        victim.signal(signal.SIGSTOP)
    leaving.check_others()
    for victim in leaving.victims:
        victim.signal(signal.SIGCONT)
    if leaving.leaving.ended().get("error") == "NoSourceError":
        # It slept for longer than a pull waits for neighbours.
        leaving.leaving.start_pull("--no-origin")
        leaving.leaving.pulled()
    check_all([leaving.leaving], leaving.commit)
