import ipaddress

import pytest

from p2p.net.interfaces import Choice, Interface, choose, why_not

UP, BROADCAST, LOOPBACK, POINT_TO_POINT = 0x1, 0x2, 0x8, 0x10
RUNNING, MULTICAST = 0x40, 0x1000
LAN = UP | BROADCAST | RUNNING | MULTICAST


def interface(
    name: str = "eth0",
    *networks: str,
    flags: int = LAN,
    hardware: int = 1,
    kind: str = "",
) -> Interface:
    return Interface(
        name=name,
        index=2,
        flags=flags,
        hardware=hardware,
        kind=kind,
        networks=tuple(map(ipaddress.ip_interface, networks or ("192.0.2.1/24",))),
    )


def reaches(it: Interface, address: str) -> bool:
    return it.reaches(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "name, kind, hardware",
    [
        ("eth0", "", 1),
        ("enp3s0", "", 1),
        ("wlan0", "", 1),
        ("br0", "bridge", 1),
        ("bond0", "bond", 1),
        ("eth0.7", "vlan", 1),
        ("eth0", "veth", 1),
        ("virbr0", "bridge", 1),
        ("mon0", "", 801),
    ],
)
def test_lans_are_chosen(name: str, kind: str, hardware: int) -> None:
    assert why_not(interface(name, kind=kind, hardware=hardware), Choice()) is None


@pytest.mark.parametrize(
    "it, why",
    [
        (
            interface("lo", "127.0.0.1/8", flags=LAN | LOOPBACK, hardware=772),
            "loopback",
        ),
        (interface(flags=LAN & ~UP), "it is down"),
        (interface(flags=LAN & ~RUNNING), "no carrier"),
        (interface(flags=LAN & ~MULTICAST), "no multicast"),
        (interface(flags=LAN & ~BROADCAST), "one other end"),
        (interface(flags=LAN | POINT_TO_POINT), "one other end"),
        (interface("mine0", kind="wireguard", hardware=65534), "tunnel"),
        (interface("mine0", kind="tun"), "tunnel"),
        (interface("mine0", kind="vxlan"), "tunnel"),
        (interface("mine0", hardware=512), "tunnel"),
        (interface("tap3"), "its name"),
        (interface("wwan0"), "its name"),
        (interface("wwp0s20u3"), "its name"),
        (interface("tailscale0"), "its name"),
        (interface("docker0", kind="bridge"), "its name"),
        (interface("eth0", "192.0.2.1/32"), "no address with a prefix"),
        (interface("eth0", "192.0.2.1/0"), "no address with a prefix"),
        (interface("eth0", "fd00::1/128"), "no address with a prefix"),
    ],
)
def test_what_is_no_lan_is_not_chosen_and_says_why(it: Interface, why: str) -> None:
    reason = why_not(it, Choice())
    assert reason is not None
    assert why in reason
    assert choose([it], Choice()) == ()


def test_an_interface_without_any_address_is_not_chosen() -> None:
    bare = Interface(name="eth0", index=2, flags=LAN, hardware=1)
    assert why_not(bare, Choice()) == "it has no address with a prefix"


def test_names_in_the_configuration_count_more() -> None:
    vpn = interface("wg0", kind="wireguard", flags=UP, hardware=65534)
    lo = interface("lo", "127.0.0.1/8", flags=UP | LOOPBACK, hardware=772)
    lan = interface("eth0")
    everything = [vpn, lo, lan]
    assert choose(everything, Choice()) == (lan,)
    assert choose(everything, Choice(only=("wg*", "lo"))) == (vpn, lo)
    assert choose(everything, Choice(never=("eth?",))) == ()
    assert choose(everything, Choice(only=("*",), never=("wg0",))) == (lo, lan)
    assert why_not(lan, Choice(only=("wg*",))) == "others are configured"
    assert why_not(lan, Choice(never=("eth0",))) == "it is excluded by configuration"


def test_a_named_interface_must_still_be_up_and_have_neighbours() -> None:
    assert why_not(interface(flags=0), Choice(only=("eth0",))) == "it is down"
    alone = interface("eth0", "192.0.2.1/32")
    assert why_not(alone, Choice(only=("eth0",))) == "it has no address with a prefix"


def test_what_is_on_the_link() -> None:
    it = interface("eth0", "192.0.2.1/24", "203.0.113.5/31", "fe80::1/64", "fd00::1/64")
    for near in ("192.0.2.2", "192.0.2.1", "203.0.113.4", "fe80::9", "fd00::9"):
        assert reaches(it, near)
    for far in (
        "192.0.3.2",
        "192.0.2.0",
        "192.0.2.255",
        "203.0.113.6",
        "fd01::9",
        "ff02::fb",
        "224.0.0.251",
        "0.0.0.0",  # noqa: S104  an answer, not a bind
        "::",
        "127.0.0.1",
        "::1",
    ):
        assert not reaches(it, far)
    assert it.holds(ipaddress.ip_address("192.0.2.1"))
    assert not it.holds(ipaddress.ip_address("192.0.2.2"))


def test_a_wide_prefix_does_not_lead_to_the_loopback() -> None:
    assert not reaches(interface("eth0", "64.0.0.1/2"), "127.0.0.1")


def test_an_address_for_one_machine_reaches_nobody() -> None:
    it = interface("eth0", "192.0.2.1/32", "fd00::1/128", "fe80::1/64")
    assert not reaches(it, "192.0.2.1")
    assert not reaches(it, "fd00::1")
    assert reaches(it, "fe80::2")


def test_the_loopback_reaches_only_itself() -> None:
    it = interface("lo", "127.0.0.1/8", "::1/128", flags=UP | LOOPBACK)
    assert reaches(it, "127.0.0.1")
    assert reaches(it, "127.0.0.9")
    assert not reaches(it, "192.0.2.1")


def test_a_flag_that_blinks_makes_no_other_interface() -> None:
    assert interface(flags=LAN) == interface(flags=LAN | 0x100)
    assert interface("eth0") != interface("eth0", "192.0.2.9/24")
