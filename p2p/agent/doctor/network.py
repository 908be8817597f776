"""Checks of the network: where neighbours are looked for, and whether they get in."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from p2p.agent.doctor.finding import Finding, fail, ok, warn
from p2p.net.interfaces import Choice, Interface, why_not
from p2p.wire import packing

MDNS_PORT = 5353
Port = tuple[str, int]
"""`udp` or `tcp`, and the number."""
_FIREWALL_SECONDS = 10.0


def check_interfaces(interfaces: Iterable[Interface], choice: Choice) -> Finding:
    """Tell where neighbours are looked for, and why not elsewhere."""
    chosen, others = [], []
    for interface in interfaces:
        reason = why_not(interface, choice)
        if reason is None:
            addresses = " ".join(map(str, interface.networks))
            chosen.append(f"{interface.name} ({addresses})")
        else:
            others.append(f"{interface.name} ({reason})")
    message = "; ".join(
        (", ".join(chosen) or "none", *(f"not {other}" for other in others))
    )
    if chosen:
        return ok("interfaces", message)
    if choice.only:
        remedy = "None of `interfaces` in [neighbours] can be used: correct it."
        return fail("interfaces", message, remedy)
    remedy = "Name one in `interfaces` of [neighbours], or neighbours in `peers`."
    return warn("interfaces", message, remedy)


def check_compression(*, wanted: bool) -> Finding:
    """Tell whether content is packed for neighbours."""
    if not wanted:
        return ok("compression", "off, as configured")
    if packing.IS_AVAILABLE:
        return ok("compression", "zstd, for neighbours who have it too")
    return warn(
        "compression",
        "content goes to neighbours as it is: this Python has no zstd",
        "pip install 'ostree-p2p[fast]'",
    )


def check_shareable(port: int = MDNS_PORT) -> Finding:
    """Tell whether the port of mDNS can be used beside who uses it now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind(("", port))
        except OSError as error:
            return fail(
                "mdns",
                f"UDP port {port}: {error.strerror}",
                f"See who holds it alone: `ss -ulpn 'sport = {port}'`, and stop it.",
            )
    return ok("mdns", f"UDP port {port} can be shared")


def check_port(host: str, port: int, own: int | None) -> Finding:
    """Tell whether neighbours can be listened to.

    Args:
        host: the address, empty for all.
        port: as configured; 0 lets the system choose.
        own: what the running agent listens on, if it does.

    """
    if own is not None and port in (0, own):
        return ok("port", f"the agent listens on TCP port {own}")
    if port == 0:
        return ok("port", "the system chooses one")
    try:
        _bind(host, port)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        return fail(
            "port",
            f"TCP {host or '*'}:{port}: {error.strerror}",
            f"See who has it: `ss -tlpn 'sport = {port}'`, or set another `listen`."
            if taken
            else "Set `listen` of [neighbours] to an address of this machine.",
        )
    return ok("port", f"TCP {host or '*'}:{port} is free")


def _bind(host: str, port: int) -> None:
    found = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)


# -- firewall ------------------------------------------------------------------------


def read_firewall() -> Any:
    """Return nftables' rules as their JSON says them; None if they cannot be read."""
    path = os.environ.get("PATH", os.defpath)
    program = shutil.which("nft", path=f"{path}:/usr/sbin:/sbin")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-j", "list", "ruleset"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_FIREWALL_SECONDS,
        )
        return json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # it needs root, and is a hint only


def check_firewall(ruleset: Any, ports: Sequence[Port]) -> Finding:
    """Tell whether nftables lets neighbours in, as far as a look at its rules says."""
    if ruleset is None:
        return ok("firewall", "not looked at: that needs root, and the program nft")
    if _is_of_iptables(ruleset):
        return ok("firewall", "not looked at: rules of iptables (`iptables -S`)")
    closed = closed_ports(ruleset, ports)
    if not closed:
        return ok("firewall", "nftables has no rule that keeps neighbours out")
    named = " and ".join(f"{protocol.upper()} {port}" for protocol, port in closed)
    return warn(
        "firewall",
        f"nftables drops what no rule accepts, and no rule names {named}",
        f"Accept {named} from the local network.",
    )


def closed_ports(ruleset: Any, ports: Sequence[Port]) -> tuple[Port, ...]:
    """Return the ports that no rule accepts, where only what is accepted comes in."""
    entries = _entries(ruleset)
    rules = [entry["rule"] for entry in entries if "rule" in entry]
    chains = [entry["chain"] for entry in entries if "chain" in entry]
    if not any(_is_shut(chain, rules) for chain in chains):
        return ()
    accepting = [rule for rule in rules if _verdict(rule, "accept")]
    return tuple(
        port for port in ports if not any(_names(rule, port) for rule in accepting)
    )


def _is_of_iptables(ruleset: Any) -> bool:
    """Whether rules match by iptables' extensions, which nft does not spell out."""
    rules = (entry["rule"] for entry in _entries(ruleset) if "rule" in entry)
    return any("xt" in each for rule in rules for each in _expressions(rule))


def _entries(ruleset: Any) -> list[Mapping[str, Any]]:
    entries = ruleset.get("nftables") if isinstance(ruleset, dict) else None
    entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _is_shut(chain: Mapping[str, Any], rules: list[Mapping[str, Any]]) -> bool:
    """Whether what comes in along a chain is refused in the end."""
    if chain.get("hook") != "input":
        return False
    if chain.get("policy") == "drop":
        return True
    keys = ("family", "table")
    mine = [
        rule
        for rule in rules
        if rule.get("chain") == chain.get("name")
        and all(rule.get(key) == chain.get(key) for key in keys)
    ]
    return bool(mine) and _refuses_all(mine[-1])


def _refuses_all(rule: Mapping[str, Any]) -> bool:
    conditional = any("match" in each for each in _expressions(rule))
    return not conditional and (_verdict(rule, "drop") or _verdict(rule, "reject"))


def _expressions(rule: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (each for each in rule.get("expr", ()) if isinstance(each, dict))


def _verdict(rule: Mapping[str, Any], verdict: str) -> bool:
    return any(verdict in each for each in _expressions(rule))


def _names(rule: Mapping[str, Any], port: Port) -> bool:
    """Whether a rule is about that port of that protocol."""
    for each in _expressions(rule):
        match each.get("match"):
            case {
                "left": {"payload": {"protocol": str(protocol), "field": "dport"}},
                "right": right,
            } if protocol in (port[0], "th"):
                return _holds(right, port[1])
    return False


def _holds(value: Any, port: int) -> bool:
    match value:
        case {"set": list(members)}:
            return any(_holds(member, port) for member in members)
        case {"range": [int(first), int(last)]}:
            return first <= port <= last
        case str(name):  # a set of that name: what is in it is not looked at
            return name.startswith("@")
    return bool(value == port)
