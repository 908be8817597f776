"""Where to dial a neighbour; pure."""

from __future__ import annotations

from typing import NamedTuple

from p2p.errors import ConfigError

DEFAULT_PORT = 28727
"""TCP; not assigned by IANA and below 32768, where Linux picks ports at random."""


class Target(NamedTuple):
    """A name or an address (IPv6 link-local as `fe80::1%eth0`), and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_target(text: str, where: str = "peer") -> Target:
    """Return what people write as HOST, HOST:PORT, [IPV6]:PORT or IPV6.

    Raises:
        ConfigError: it is none of these; `where` names the setting.

    """
    host, bracket, rest = text.removeprefix("[").partition("]")
    if text.startswith("["):
        if not bracket or (rest and not rest.startswith(":")):
            raise ConfigError(where, f"{text!r} is not [IPV6]:PORT")
        port = rest[1:] if rest else str(DEFAULT_PORT)
    elif text.count(":") > 1:
        host, port = text, str(DEFAULT_PORT)
    else:
        host, colon, port = text.partition(":")
        port = port if colon else str(DEFAULT_PORT)
    if not host or host != host.strip():
        raise ConfigError(where, f"{text!r} names no host")
    if not (port.isascii() and port.isdigit()) or not 1 <= int(port[:6]) <= 65535:
        raise ConfigError(where, f"{text!r} has no port from 1 to 65535")
    return Target(host, int(port))
