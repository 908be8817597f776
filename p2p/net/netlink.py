"""Network interfaces as the Linux kernel tells them over rtnetlink.

The kernel answers a dump at once, so reading is not async; changes are awaited.
Source: rtnetlink(7), linux/if_link.h, linux/if_addr.h, linux/if_arp.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple, Self

import trio

from p2p.errors import FormatError, TransportError
from p2p.net.interfaces import Interface, Network

_DONE, _ERROR = 3, 2
_NEW_LINK, _GET_LINK = 16, 18
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_REQUEST_DUMP = 0x301
_DUMP_INTERRUPTED = 0x10
# RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_CHANGES: Final = 0x1 | 0x10 | 0x100

_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
# Duplicate address detection still runs, or has failed: not ours to use.
_NOT_OURS_YET = 0x40 | 0x08
# One of IPv6's addresses of a day; the same bit means something else for IPv4.
_TEMPORARY = 0x01

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_DUMP_BYTES = 1 << 16
# A dump is torn when something changes meanwhile; more often than this is a storm.
_TRIES = 20
# An interface that comes up tells so several times within a moment.
QUIET_SECONDS: Final = 0.3
MAX_WAIT_SECONDS: Final = 2.0


class Message(NamedTuple):
    """One netlink message: its kind, its flags and what follows the header."""

    kind: int
    flags: int
    body: bytes


def read_interfaces() -> tuple[Interface, ...]:
    """Return all interfaces with the addresses that may be used, by index.

    Raises:
        TransportError: the kernel or a sandbox does not allow it.

    """
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0
        ) as sock:
            links = _dump(sock, _GET_LINK)
            addresses = _dump(sock, _GET_ADDRESS)
    except OSError as error:
        raise _not_allowed(error) from error
    return parse_interfaces(links, addresses)


def parse_interfaces(
    links: list[Message], addresses: list[Message]
) -> tuple[Interface, ...]:
    """Return what two dumps say; FormatError if they are not such dumps."""
    networks: dict[int, list[Network]] = {}
    for message in addresses:
        if message.kind == _NEW_ADDRESS:
            index, network = _address(message.body)
            if network is not None:
                networks.setdefault(index, []).append(network)
    found = [_link(m.body, networks) for m in links if m.kind == _NEW_LINK]
    return tuple(sorted(found, key=lambda interface: interface.index))


def parse_messages(data: bytes) -> Iterator[Message]:
    """Yield the messages of one datagram; FormatError if it is cut short."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEADER.size:
            raise FormatError("a netlink message is cut short")
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            raise FormatError("a netlink message has an impossible length")
        yield Message(kind, flags, data[at + _HEADER.size : at + length])
        at += (length + 3) & ~3


class KernelInterfaces:
    """The interfaces as they are, and word when they have changed."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        """Take over a netlink socket that is bound to the groups of changes."""
        self._socket = sock

    @classmethod
    async def open(cls) -> Self:
        """Begin to listen; TransportError if that is not allowed."""
        try:
            sock = trio.socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0
            )
        except OSError as error:
            raise _not_allowed(error) from error
        try:
            await sock.bind((0, _CHANGES))
        except OSError as error:
            sock.close()
            raise _not_allowed(error) from error
        except trio.Cancelled:
            sock.close()
            raise
        return cls(sock)

    def read(self) -> tuple[Interface, ...]:
        """Return them as they are now; see `read_interfaces`."""
        return read_interfaces()

    async def wait(self) -> None:
        """Return a moment after something changed, once it is quiet or soon enough."""
        await self._next()
        with trio.move_on_after(MAX_WAIT_SECONDS):
            while True:
                with trio.move_on_after(QUIET_SECONDS) as quiet:
                    await self._next()
                if quiet.cancelled_caught:
                    return

    async def _next(self) -> None:
        try:
            await self._socket.recv(_DUMP_BYTES)
        except OSError as error:
            # More changes than the socket holds are a change too.
            if error.errno != errno.ENOBUFS:
                raise _not_allowed(error) from error

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _dump(sock: socket.socket, kind: int) -> list[Message]:
    for _ in range(_TRIES):
        body = struct.pack("=Bxxx", socket.AF_UNSPEC)
        size = _HEADER.size + len(body)
        sock.send(_HEADER.pack(size, kind, _REQUEST_DUMP, 0, 0) + body)
        messages = _read_dump(sock)
        if not any(message.flags & _DUMP_INTERRUPTED for message in messages):
            return messages
    raise FormatError("the network interfaces change faster than they can be read")


def _read_dump(sock: socket.socket) -> list[Message]:
    messages: list[Message] = []
    while True:
        for message in parse_messages(sock.recv(_DUMP_BYTES)):
            if message.kind == _ERROR:
                (number,) = struct.unpack_from("=i", message.body)
                raise OSError(-number, "netlink")
            if message.kind == _DONE:
                return messages
            messages.append(message)


def _link(body: bytes, networks: dict[int, list[Network]]) -> Interface:
    if len(body) < _LINK.size:
        raise FormatError("a netlink link is cut short")
    _, hardware, index, flags, _ = _LINK.unpack_from(body)
    attributes = _attributes(body[_LINK.size :])
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""))
    return Interface(
        name=_text(attributes.get(_IFLA_IFNAME, b"")),
        index=index,
        flags=flags,
        hardware=hardware,
        kind=_text(info.get(_IFLA_INFO_KIND, b"")),
        networks=tuple(networks.get(index, ())),
    )


def _address(body: bytes) -> tuple[int, Network | None]:
    if len(body) < _ADDRESS.size:
        raise FormatError("a netlink address is cut short")
    family, prefix, flags, _, index = _ADDRESS.unpack_from(body)
    attributes = _attributes(body[_ADDRESS.size :])
    more = attributes.get(_IFA_FLAGS)
    if more is not None and len(more) == 4:
        flags = int.from_bytes(more, sys.byteorder)
    # On a point-to-point link IFA_ADDRESS is the other end's.
    raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS) or b""
    if flags & _NOT_OURS_YET or (family == socket.AF_INET6 and flags & _TEMPORARY):
        return index, None
    with suppress(ValueError):
        if family == socket.AF_INET:
            return index, ipaddress.IPv4Interface((raw, prefix))
        if family == socket.AF_INET6:
            return index, ipaddress.IPv6Interface((raw, prefix))
    return index, None


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while len(data) - at >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            raise FormatError("a netlink attribute has an impossible length")
        found[kind & 0x3FFF] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _not_allowed(error: OSError) -> TransportError:
    return TransportError(
        f"the network interfaces cannot be read: {error.strerror or error}",
        hint="Allow AF_NETLINK sockets (systemd: RestrictAddressFamilies=).",
    )
