"""What neighbours make of what they have while the origin is gone."""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.site import Device, Site, check_all, open_site, until
from tests.oracle import dangling, walk_objects
from tests.oracle.walker import object_files
from tests.pulls import REF
from tests.trees import MIB, random_tree

pytestmark = pytest.mark.root


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    random_tree(tmp_path / "tree", seed=7, files=250, size=4 * MIB)
    with open_site(tmp_path, uplink="6mbit") as made:
        yield made


@pytest.fixture
def commit(site: Site, tmp_path: Path) -> str:
    return site.publisher.commit(tmp_path / "tree")


def until_all_have(devices: list[Device], commit: str) -> None:
    until(
        lambda: all(device.has(commit) for device in devices),
        lambda: [(d.host.name, d.share_here, d.last, d.log) for d in devices],
    )


def objects(device: Device) -> frozenset[str]:
    """Every object of a device, staged or published, but commits."""
    return frozenset(
        f"{checksum}.{kind}"
        for _, checksum, kind in object_files(device.repo)
        if kind in ("file", "dirtree", "dirmeta")
    )


def test_all_get_what_one_has_and_the_rest_once_the_origin_is_back(
    site: Site, commit: str
) -> None:
    devices = site.devices(3)
    for device in devices:
        device.start_agent(site)
    until(lambda: any(device.share_here >= 0.5 for device in devices))
    site.origin.unplug()
    until(
        lambda: len({objects(device) for device in devices}) == 1,
        lambda: [(len(objects(device)), device.status()) for device in devices],
    )
    assert not any(device.has(commit) for device in devices)
    for device in devices:
        assert not walk_objects(device.repo).problems
        assert not dangling(device.repo)
    site.origin.plug()
    until_all_have(devices, commit)
    check_all(devices, commit)


def test_two_that_have_half_each_complete_each_other(site: Site, commit: str) -> None:
    holder = site.holder("holder")
    devices = site.devices(2)
    for number, device in enumerate(devices):
        shutil.copytree(
            holder.repo / "objects",
            device.repo / "objects",
            symlinks=True,
            dirs_exist_ok=True,
        )
        (device.repo / "state" / f"{commit}.commitpartial").touch()
        for path, checksum, kind in list(object_files(device.repo)):
            if not kind.startswith("commit") and int(checksum[0], 16) % 2 == number:
                path.unlink()
        assert not dangling(device.repo)
    for device in devices:
        device.start_pull("--no-origin", ref=f"{REF}@{commit}")
    for device in devices:
        device.pulled()
    check_all(devices, commit)


def test_what_owners_of_a_share_leave_undone_is_fetched_by_others(
    site: Site, commit: str
) -> None:
    devices = site.devices(5)
    for device in devices:
        device.start_agent(site)
    cut, suspended, *others = devices
    until(lambda: cut.share_here >= 0.3)
    suspended.signal(signal.SIGSTOP)
    cut.host.unplug()
    cut.kill()
    left = time.monotonic()
    until_all_have(others, commit)
    # The rest of a copy takes 4 s; nobody waits for the dead as long again.
    assert time.monotonic() - left < 30
    assert not cut.has(commit)
    assert not walk_objects(cut.repo).problems
    assert not dangling(cut.repo)
    suspended.signal(signal.SIGCONT)
    cut.host.plug()
    cut.start_agent(site)
    until_all_have(devices, commit)
    check_all(devices, commit)
