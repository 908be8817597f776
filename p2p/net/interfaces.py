"""Which network interfaces neighbours are looked for on, and who is on them; pure.

Chosen by itself is an interface that is up with carrier, can broadcast and
multicast, has an address with a prefix, and is not a tunnel, a VPN or a modem.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

Network = ipaddress.IPv4Interface | ipaddress.IPv6Interface
"""An interface's own address with the length of its prefix."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# net_device_flags of linux/if.h
_UP, _BROADCAST, _LOOPBACK, _POINT_TO_POINT = 0x1, 0x2, 0x8, 0x10
_RUNNING, _MULTICAST = 0x40, 0x1000
# ARPHRD_ETHER and ARPHRD_IEEE80211 of linux/if_arp.h
_HARDWARE = frozenset({1, 801})
# IFLA_INFO_KIND of interfaces that carry packets over another one, or to machines
# that are not there: VPNs, tunnels, overlays, tests.
_TUNNELS = frozenset(
    {
        *("amt", "bareudp", "erspan", "geneve", "gre", "gretap", "gtp", "ip6erspan"),
        *("ip6gre", "ip6gretap", "ip6tnl", "ipip", "ovpn", "ppp", "rmnet", "sit"),
        *("tun", "vti", "vti6", "vxlan", "wireguard", "wwan", "xfrm"),
        *("dummy", "ifb", "netdevsim", "nlmon"),
    }
)
# The same by the names people and programs give them (a tap device looks like
# Ethernet; so does a modem).
_NAMES = (
    "tun*",
    "tap*",
    "ppp*",
    "wg*",
    "vpn*",
    "ipsec*",
    "tailscale*",
    "zt*",
    "nebula*",
    "wwan*",
    "wwp*",
    "ww[0-9]*",
    "rmnet*",
    "docker*",
    "podman*",
    "cni*",
    "flannel*",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One network interface, as the kernel tells it.

    Attributes:
        name: as in `ip link`.
        index: the kernel's number, which scopes link-local addresses.
        flags: IFF_… bits; two that differ only here are equal.
        hardware: ARPHRD_… number, for example 1 for Ethernet.
        kind: of a virtual one, for example "wireguard"; else "".
        networks: its own addresses that are in use, with their prefixes.

    """

    name: str
    index: int
    flags: int = field(compare=False)
    hardware: int
    kind: str = ""
    networks: tuple[Network, ...] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether it leads to this machine only."""
        return bool(self.flags & _LOOPBACK)

    def holds(self, address: Address) -> bool:
        """Whether the address is its own."""
        return any(network.ip == address for network in self.networks)

    def reaches(self, address: Address) -> bool:
        """Whether the address is one machine on this very link."""
        if address.is_multicast or address.is_unspecified:
            return False
        if address.is_loopback != self.is_loopback:
            return False
        return any(_on_link(address, network) for network in self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the user says of interfaces; names may have `*`, `?` and `[…]`.

    Attributes:
        only: take exactly these, whatever they are; empty: choose by itself.
        never: never take these.

    """

    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


def choose(interfaces: Iterable[Interface], choice: Choice) -> tuple[Interface, ...]:
    """Return the interfaces on which neighbours are looked for."""
    return tuple(i for i in interfaces if why_not(i, choice) is None)


def why_not(interface: Interface, choice: Choice) -> str | None:
    """Return why an interface is not chosen, for people; None: it is."""
    if _named(interface, choice.never):
        return "it is excluded by configuration"
    if not interface.flags & _UP:
        return "it is down"
    if not any(map(_has_prefix, interface.networks)):
        return "it has no address with a prefix"
    if choice.only:
        return None if _named(interface, choice.only) else "others are configured"
    return _unfit(interface)


def _unfit(interface: Interface) -> str | None:
    if interface.is_loopback:
        return "it is the loopback"
    if interface.hardware not in _HARDWARE or interface.kind in _TUNNELS:
        return "it is a tunnel, a VPN or a modem"
    if _named(interface, _NAMES):
        return "its name is that of a tunnel, a VPN, a modem or of containers"
    if not interface.flags & _RUNNING:
        return "it has no carrier"
    if not interface.flags & _BROADCAST or interface.flags & _POINT_TO_POINT:
        return "it has only one other end"
    if not interface.flags & _MULTICAST:
        return "it has no multicast"
    return None


def _named(interface: Interface, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(interface.name, pattern) for pattern in patterns)


def _has_prefix(network: Network) -> bool:
    """Whether the prefix names neighbours: neither nobody nor everybody."""
    return 0 < network.network.prefixlen < network.max_prefixlen


def _on_link(address: Address, network: Network) -> bool:
    if not _has_prefix(network) or address not in network.network:
        return False
    if address.version == 6 or network.network.prefixlen == 31:
        return True
    ends = (network.network.network_address, network.network.broadcast_address)
    return address not in ends
