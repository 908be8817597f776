"""Who meets whom on one link: agents that find each other by mDNS, or by a name."""

import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.site import Device, Site, open_site, until
from tests.pulls import ROOT
from tests.trees import small_tree

pytestmark = pytest.mark.root


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    small_tree(tmp_path / "tree")
    with open_site(tmp_path, uplink="100mbit") as made:
        made.publisher.commit(tmp_path / "tree")
        yield made


def until_pulled(*devices: Device) -> None:
    until(
        lambda: all(device.has_pulled() for device in devices),
        lambda: [(device.status(), device.log) for device in devices],
    )


def until_met(who: Device, *others: Device) -> None:
    """Wait until one meets these others."""
    until(lambda: all(other.status().get("device") for other in others))
    wanted = {other.status()["device"] for other in others}
    until(lambda: wanted <= who.peers().keys(), lambda: (who.status(), who.log))


def sessions_since(who: Device, moment: float) -> int:
    """How many sessions it has that came up after a moment."""
    peers = who.peers().values()
    now = time.monotonic()
    return sum(now - peer["seconds"] > moment for peer in peers)


def test_sites_on_one_link_keep_apart(site: Site) -> None:
    first, same, other = site.devices(3)
    first.start_agent(site, "--site=a")
    until_pulled(first)
    same.start_agent(site, "--site=a")
    other.start_agent(site, "--site=b")
    until_pulled(same, other)
    assert same.last["peer_objects"] > 10
    assert other.last["peer_objects"] == 0
    until_met(same, first)
    assert {peer["site"] for peer in same.peers().values()} == {"a"}
    assert other.peers() == {}


def test_seventeen_agents_meet_also_where_several_are_on_one_host(site: Site) -> None:
    devices: list[Device] = []
    for number in range(17):
        host = devices[-1].host if number % 4 else None
        device = site.device(f"d{number}", host)
        device.start_agent(site)
        devices.append(device)
    for device in devices:
        until_met(device, *(other for other in devices if other is not device))
    assert not [device.status()["problems"] for device in devices if device.log]
    until_pulled(*devices)


def test_one_that_was_killed_and_started_again_is_met_again(site: Site) -> None:
    one, two = site.devices(2)
    one.start_agent(site)
    two.start_agent(site)
    until_met(one, two)
    (device,) = one.peers()
    two.kill()
    killed = time.monotonic()
    two.start_agent(site)
    until_met(two, one)
    assert one.peers().keys() == {device}
    assert sessions_since(one, killed) == 1


def test_a_static_peer_is_found_by_name_where_it_is_now(
    site: Site, tmp_path: Path
) -> None:
    one, two = site.devices(2)
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{two.host.address} neighbour.example\n")
    use_hosts = 'mount --bind "$0" /etc/hosts && exec "$@"'
    one.prefix = ("sh", "-c", use_hosts, str(hosts))
    one.start_agent(site, "--no-mdns", "--peer=neighbour.example:4711")
    two.start_agent(site, "--no-mdns", "--listen=:4711")
    until_met(one, two)
    (peer,) = one.peers().values()
    assert peer["address"] == "neighbour.example:4711"
    two.host.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
    two.host.run("ip", "address", "add", "10.9.0.99/24", "dev", "eth0", "brd", "+")
    hosts.write_text("10.9.0.99 neighbour.example\n")
    moved = time.monotonic()
    until(lambda: sessions_since(one, moved) == 1, lambda: (one.peers(), one.log))


def test_what_mdns_says_that_is_wrong_keeps_nobody_from_being_met(site: Site) -> None:
    one, two = site.devices(2)
    liar = site.lab.host("liar")
    one.start_agent(site)
    until(lambda: one.status().get("port"))
    program = f"""
        from p2p.net.advert import InstanceId
        from tests.net import dns
        who = lambda number: InstanceId(number.to_bytes(16))
        own = {liar.address!r}
        dns.throw(
            own,
            dns.announce(who(2), "203.0.113.7"),  # off the link
            dns.announce(who(3), "127.0.0.1", "224.0.0.1", "::1"),
            dns.announce(who(4), own, txt=b"\\xff"),
            dns.announce(who(5), own, first="printer"),
            b"_ostree-p2p" + bytes(range(256)) * 20,
            dns.announce(who(6), own, port=9),  # nobody listens there
            dns.announce(who(7), {one.host.address!r}, port=28727),  # itself
        )
    """
    python = (sys.executable, "-c")
    liar.run("/usr/bin/env", f"PYTHONPATH={ROOT}", *python, textwrap.dedent(program))
    two.start_agent(site)
    until_met(one, two)
    until_met(two, one)
    until_pulled(one, two)
    assert len(one.peers()) == 1
    assert one.status()["problems"] == []
