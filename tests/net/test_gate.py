import ipaddress

from p2p.net.gate import (
    ALL_BURST,
    ALL_PER_SECOND,
    SOURCE_BURST,
    SOURCES,
    Gate,
)
from p2p.net.interfaces import Interface

LABEL = "p2p-" + "ab" * 16
OURS = b"\0\0\x84\0" + b"\x0b_ostree-p2p\x04_tcp\x05local\0"
THEIRS = b"\0\0\x84\0" + b"\x0b_googlecast\x04_tcp\x05local\0"
ETH = Interface(
    name="eth0",
    index=2,
    flags=0x1043,
    hardware=1,
    networks=(
        ipaddress.ip_interface("10.0.0.1/8"),
        ipaddress.ip_interface("fe80::1/64"),
    ),
)


def gate(*, asking: bool = False) -> Gate:
    return Gate(ETH, LABEL, lambda: asking)


def test_packets_about_our_service_pass_in_any_case() -> None:
    it = gate()
    assert it.passes(OURS, "10.0.0.2", 0, 0.0)
    assert it.passes(OURS.upper(), "10.0.0.2", 0, 0.0)
    assert it.passes(b"\x24" + LABEL.encode() + b"\x05local\0", "10.0.0.2", 0, 0.0)
    assert it.passes(b"\x09_services\x07_dns-sd\x04_udp", "10.0.0.2", 0, 0.0)
    assert it.counts == {"packets": 4}


def test_packets_about_other_things_are_read_only_while_we_ask() -> None:
    it = gate()
    assert not it.passes(THEIRS, "10.0.0.2", 0, 0.0)
    assert it.counts == {"packets": 1, "not about us": 1}
    assert gate(asking=True).passes(THEIRS, "10.0.0.2", 0, 0.0)


def test_packets_from_off_the_link_are_dropped() -> None:
    it = gate(asking=True)
    assert not it.passes(OURS, "192.0.2.7", 0, 0.0)
    assert not it.passes(OURS, "fd00::7", 0, 0.0)
    assert not it.passes(OURS, "fe80::7", 3, 0.0)
    assert it.passes(OURS, "fe80::7", 2, 0.0)
    assert it.passes(OURS, "fe80::7%eth0", 2, 0.0)
    assert it.counts["off the link"] == 3


def test_a_flood_from_one_source_leaves_others_alone() -> None:
    it = gate()
    passed = sum(it.passes(OURS, "10.0.0.2", 0, 0.0) for _ in range(1000))
    assert passed == SOURCE_BURST
    assert it.counts["a flood"] == 1000 - SOURCE_BURST
    assert it.passes(OURS, "10.0.0.3", 0, 0.0)
    assert it.passes(OURS, "10.0.0.2", 0, 1.0)


def test_a_flood_from_many_sources_is_bounded_too() -> None:
    it = gate()
    passed = sum(
        it.passes(OURS, f"10.1.{n >> 8}.{n & 255}", 0, n / 20000) for n in range(20000)
    )
    assert passed <= ALL_BURST + ALL_PER_SECOND + 1
    assert len(it._seen) <= SOURCES


def test_agents_on_this_machine_are_not_taken_for_one_flood() -> None:
    it = gate()
    assert all(it.passes(OURS, "10.0.0.1", 0, 0.0) for _ in range(1000))
