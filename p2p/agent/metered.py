"""Which networks cost by the byte, as the system's network manager and the user say.

NetworkManager says it of each device, and of what leads to the internet; of ConnMan it
is known what is cellular. systemd-networkd knows nothing of it. Both are asked by
`busctl`, which comes with systemd. What nobody says is not metered.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

import trio

_log = logging.getLogger(__name__)
_NM = "org.freedesktop.NetworkManager"
_NETWORK_MANAGER: Final = (
    *(_NM, "/org/freedesktop"),
    *("org.freedesktop.DBus.ObjectManager", "GetManagedObjects"),
)
_CONNMAN: Final = ("net.connman", "/", "net.connman.Manager", "GetServices")
# NMMetered: yes, and guessed so.
_METERED = (1, 3)
_ANSWER_SECONDS = 5.0
_MAX_ANSWER_BYTES = 8 << 20
_ROUTES = "/proc/net/route"
_ROUTES_V6 = "/proc/net/ipv6_route"
_UP = 0x1
_REJECT = 0x200


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """What is known of metered networks.

    Attributes:
        interfaces: those that are, each with who says so.
        uplink: why the way to the internet is; "" if it is not.
        told_by: who was there to say anything.

    """

    interfaces: Mapping[str, str] = field(default_factory=dict)
    uplink: str = ""
    told_by: tuple[str, ...] = ()


async def read_metered(names: Iterable[str], patterns: Iterable[str]) -> Metered:
    """Return what is metered.

    Args:
        names: of the interfaces that there are.
        patterns: of those that the user calls metered.

    """
    interfaces: dict[str, str] = {}
    told_by = []
    is_uplink = False
    services = await _call(_CONNMAN)
    if services is not None:
        told_by.append("ConnMan")
        interfaces |= dict.fromkeys(cellular_of_connman(services), "ConnMan")
    objects = await _call(_NETWORK_MANAGER)
    if objects is not None:
        told_by.append("NetworkManager")
        devices, is_uplink = metered_of_network_manager(objects)
        interfaces |= dict.fromkeys(devices, "NetworkManager")
    patterns = tuple(patterns)
    for name in names:
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            interfaces[name] = "metered-interfaces"
    uplink = next((n for n in default_interfaces() if n in interfaces), "")
    if uplink:
        uplink = f"{uplink} is metered ({interfaces[uplink]})"
    elif is_uplink:
        uplink = "the connection is metered (NetworkManager)"
    return Metered(interfaces=interfaces, uplink=uplink, told_by=tuple(told_by))


async def _call(call: tuple[str, ...]) -> Any:
    """Return what a service of the system's bus answers; None if it is not there."""
    program = shutil.which("busctl")
    if program is None:
        return None
    options = ("--system", "--json=short", "--auto-start=no", "call")
    try:
        with trio.fail_after(_ANSWER_SECONDS):
            done = await trio.run_process(
                [program, *options, *call],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    except (OSError, trio.TooSlowError) as error:
        _log.warning("%s is not asked what is metered: %s", call[0], error)
        return None
    if done.returncode or len(done.stdout) > _MAX_ANSWER_BYTES:
        return None
    return parse_answer(done.stdout)


def parse_answer(data: bytes) -> Any:
    """Return what `busctl --json=short call` says a method returned; None if not."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return None
    match answer:
        case {"data": [value, *_]}:
            return value
    return None


def metered_of_network_manager(objects: Any) -> tuple[list[str], bool]:
    """Return the metered interfaces, and whether the way to the internet is."""
    found = []
    is_uplink = False
    for properties in _properties(objects, f"{_NM}.Device"):
        name = properties.get("Interface")
        if isinstance(name, str) and properties.get("Metered") in _METERED:
            found.append(name)
    for properties in _properties(objects, _NM):
        is_uplink = properties.get("Metered") in _METERED
    return found, is_uplink


def _properties(objects: Any, interface: str) -> Iterator[dict[str, Any]]:
    """Yield the properties of all objects that have an interface of D-Bus."""
    values = objects.values() if isinstance(objects, dict) else ()
    for interfaces in values:
        if isinstance(interfaces, dict) and isinstance(interfaces.get(interface), dict):
            yield _plain(interfaces[interface])


def _plain(variants: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of variants, as `busctl` writes them."""
    return {
        name: variant["data"]
        for name, variant in variants.items()
        if isinstance(variant, dict) and "data" in variant
    }


def cellular_of_connman(services: Any) -> list[str]:
    """Return the interfaces of ConnMan's cellular services."""
    found = []
    for service in services if isinstance(services, list) else ():
        match service:
            case [str(), dict(variants)]:
                properties = _plain(variants)
                ethernet = properties.get("Ethernet")
                if properties.get("Type") == "cellular" and isinstance(ethernet, dict):
                    found.append(_plain(ethernet).get("Interface"))
    return [name for name in found if isinstance(name, str) and name]


# -- the way to the internet ---------------------------------------------------------


def default_interfaces() -> list[str]:
    """Return the interfaces that lead to the internet, of IPv4 and of IPv6."""
    found = (_best(_routes_v4(_read(_ROUTES))), _best(_routes_v6(_read(_ROUTES_V6))))
    return [name for name in found if name is not None]


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""  # a kernel without that family


def _best(routes: Iterable[tuple[int, str]]) -> str | None:
    return min(routes, default=(0, None))[1]


def _routes_v4(text: str) -> Iterator[tuple[int, str]]:
    """Yield metric and interface of each default route; see proc(5)."""
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 8 or (words[1], words[7]) != ("00000000", "00000000"):
            continue
        flags = int(words[3], 16)
        if flags & _UP and not flags & _REJECT:
            yield int(words[6]), words[0]


def _routes_v6(text: str) -> Iterator[tuple[int, str]]:
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10 or (words[0], words[1]) != ("0" * 32, "00"):
            continue
        flags = int(words[8], 16)
        if flags & _UP and not flags & _REJECT and words[9] != "lo":
            yield int(words[5], 16), words[9]
