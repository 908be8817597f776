"""What the kernel is told of one connection: its priority, and how much to buffer."""

from __future__ import annotations

import socket
from typing import Final, Protocol

from p2p.errors import ConfigError

LOWER_EFFORT: Final = 1
"""DSCP of what may wait for everything else (RFC 8622)."""
_NAMES: Final = {
    "LE": LOWER_EFFORT,
    "EF": 46,
    **{f"CS{number}": number * 8 for number in range(8)},
    **{f"AF{x}{y}": 8 * x + 2 * y for x in range(1, 5) for y in range(1, 4)},
}
_NONE = "none"
# The kernel makes the most that it allows of it.
_PLENTY = 4 << 20


class Socket(Protocol):
    """A socket, of whatever library."""

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set an option."""
        ...


def parse_dscp(text: str, *, where: str) -> int | None:
    """Return a DSCP by its name or number, None for `none`; ConfigError if neither."""
    if text.lower() == _NONE:
        return None
    if text.upper() in _NAMES:
        return _NAMES[text.upper()]
    if text.isascii() and text.isdigit() and int(text[:3]) < 64:
        return int(text[:3])
    raise ConfigError(
        where,
        f"{text!r} is no DSCP",
        hint="Examples: LE, CS1, AF11, a number from 0 to 63, or none.",
    )


def format_dscp(dscp: int | None) -> str:
    """Return a DSCP as `parse_dscp` reads it."""
    if dscp is None:
        return _NONE
    return next((name for name, code in _NAMES.items() if code == dscp), str(dscp))


def mark(sock: Socket, dscp: int | None) -> None:
    """Have what a TCP connection sends from now on carry a DSCP; 0 for None.

    The kernel keeps the two bits beside it, which are of congestion control.
    """
    field = (dscp or 0) << 2
    # An IPv6 socket may carry IPv4: what a listener for both has accepted.
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, field)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, field)


def bound_unread(sock: Socket, size: int | None) -> None:
    """Have the kernel take so much, about, ahead of what is read; None: plenty.

    It is not what was never bounded: then the kernel finds out itself how much.
    """
    size = _PLENTY if size is None else size
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
