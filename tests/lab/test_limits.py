"""Limits of real agents, by the counters of the kernel and the packets on the wire."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.conversation import Conversation
from tests.lab.namespaces import Host
from tests.lab.site import Device, Site, open_site, until
from tests.pulls import command
from tests.trees import MIB, random_tree

pytestmark = pytest.mark.root
MBIT = 125_000.0
# Over some seconds a rate is exceeded by no more, and just after it changed.
TOLERANCE = 0.05
TOLERANCE_AT_FIRST = 0.1
# A busy machine may keep us from using all of it.
USED = 0.8
PORT = 28727
UNREAD_BYTES = 64 << 10


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, uplink="100mbit", lan="100mbit") as made:
        yield made


def publish(site: Site, path: Path, size: int, files: int = 400) -> str:
    random_tree(path / "tree", seed=7, files=files, size=size)
    return site.publisher.commit(path / "tree")


def start(device: Device, site: Site, limits: str, *options: str) -> None:
    """Start an agent with these limits."""
    (device.path / "agent.toml").write_text(f"[limits]\n{limits}\n")
    device.start_agent(site, "--no-mdns", *options)
    device.until_ready()


def set_limits(device: Device, *settings: str) -> None:
    """Give the command, as a person on the device would."""
    config = device.path / "command.toml"
    config.write_text(f'socket = "{device.path}/state/agent.sock"\n')
    device.host.run(*command("limits", "set", *settings, f"--config={config}"))


def check_rate(
    count: Callable[[], int],
    rate: float,
    *,
    seconds: float,
    tolerance: float = TOLERANCE,
) -> None:
    """Check that a counter of the kernel counts so many bytes a second meanwhile."""
    before, began = count(), time.monotonic()
    time.sleep(seconds)
    counted = (count() - before) / (time.monotonic() - began)
    assert USED * rate < counted < (1 + tolerance) * rate


def watch_marks(host: Host) -> Conversation:
    marks = Conversation(host.python("tests.lab.marks"))
    marks.until("ready")
    return marks


def sent(marks: Conversation, family: str) -> dict[str, int]:
    """How many packets of TCP were sent so far, by DSCP."""
    marks.say()
    found: dict[str, int] = marks.until("sent")[family]
    return found


def marked(marks: Conversation, family: str, count: Callable[[], bool]) -> set[str]:
    """Which DSCPs packets carry that are sent until something is so."""
    before = sent(marks, family)
    until(count)
    after = sent(marks, family)
    return {dscp for dscp in after if after[dscp] != before.get(dscp, 0)}


def until_moved(count: Callable[[], int], size: int) -> None:
    begin = count()
    until(lambda: count() >= begin + size)


def test_neighbours_are_given_no_more_than_the_rate_at_low_priority(
    site: Site, tmp_path: Path
) -> None:
    publish(site, tmp_path, 12 * MIB)
    holder = site.holder("holder")
    start(holder, site, 'upload = "2mbit"')
    until(holder.has_pulled)
    site.stop_origin()
    one, two = site.devices(2)
    for number, device in enumerate((holder, two)):
        address = f"fd00::{number + 1}/64"
        device.host.run("ip", "address", "add", address, "dev", "eth0", "nodad")
    marks = watch_marks(holder.host)
    start(one, site, "", f"--peer={holder.host.address}:{PORT}")
    start(two, site, "", f"--peer=[fd00::1]:{PORT}")
    count = holder.host.sent_bytes
    until_moved(count, int(MBIT))
    check_rate(count, 2 * MBIT, seconds=5)
    assert marked(marks, "4", lambda: True) <= {"1"}
    set_limits(holder, "upload=8mbit", "dscp=CS1")
    time.sleep(1)
    check_rate(count, 8 * MBIT, seconds=3, tolerance=TOLERANCE_AT_FIRST)
    for family in "46":
        assert marked(marks, family, lambda: True) <= {"8"}
        assert sent(marks, family)["1"] > 100
        assert sent(marks, family)["8"] > 100
    assert not holder.peers_ended()


def test_the_origin_gives_no_more_than_the_rate(site: Site, tmp_path: Path) -> None:
    publish(site, tmp_path, 16 * MIB)
    device = site.device("device")
    marks = watch_marks(device.host)
    start(device, site, 'origin = "2mbit"')
    until_moved(site.uplink_bytes, int(MBIT))
    check_rate(site.uplink_bytes, 2 * MBIT, seconds=6)
    set_limits(device, "origin=8mbit")
    time.sleep(1)
    check_rate(site.uplink_bytes, 8 * MBIT, seconds=3, tolerance=TOLERANCE_AT_FIRST)
    assert sent(marks, "4").keys() == {"1"}


def test_a_low_rate_costs_patience_and_no_neighbour(site: Site, tmp_path: Path) -> None:
    # One batch takes longer than the patience that devices have with neighbours, and
    # than after how much silence one is dropped.
    commit = publish(site, tmp_path, 250_000, files=2)
    holder = site.holder("holder")
    start(holder, site, 'upload = "256kbit"')
    until(holder.has_pulled)
    site.stop_origin()
    devices = site.devices(2)
    begin = holder.host.sent_bytes()
    for device in devices:
        start(device, site, "", f"--peer={holder.host.address}:{PORT}")
    until(lambda: all(device.has(commit) for device in devices))
    assert holder.host.sent_bytes() - begin < 3 * 250_000  # little was sent in vain
    for each in (holder, *devices):
        assert not each.peers_ended()


def test_slow_reading_costs_patience_and_no_neighbour(
    site: Site, tmp_path: Path
) -> None:
    commit = publish(site, tmp_path, 330_000, files=2)
    holders = [site.holder("hold0"), site.holder("hold1")]
    for holder in holders:
        start(holder, site, "")
    until(lambda: all(holder.has_pulled() for holder in holders))
    site.stop_origin()
    device = site.device("device")
    peers = [f"--peer={holder.host.address}:{PORT}" for holder in holders]
    start(device, site, 'download = "256kbit"', *peers)
    begin, began = device.host.received_bytes(), time.monotonic()
    until(lambda: device.has(commit), lambda: device.log)
    came = device.host.received_bytes() - begin
    assert came < 700_000  # little was given up and asked for again
    # Besides what is read, each holder may send as much ahead as Linux takes at least.
    taken = came - len(holders) * UNREAD_BYTES
    assert taken / (time.monotonic() - began) < 256_000 / 8 * (1 + TOLERANCE)
    for each in (device, *holders):
        assert not each.peers_ended()


def test_metered_networks_are_left_alone_until_that_is_allowed(
    site: Site, tmp_path: Path
) -> None:
    commit = publish(site, tmp_path, 200_000, files=20)
    device = site.device("device")
    start(device, site, 'metered-interfaces = ["eth*"]')
    until(lambda: device.last is not None)
    assert device.last["error"] == "NoSourceError"
    assert "eth0 is metered" in device.last["message"]
    [problem] = device.status()["problems"]
    assert "eth0 is metered" in problem
    (device.path / "agent.toml").write_text('[limits]\nmetered = "use"\n')
    device.signal(signal.SIGHUP)
    until(lambda: device.has(commit), lambda: device.log)
    assert device.status()["problems"] == []
