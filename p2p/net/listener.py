"""Accepting neighbours on one TCP port: limits first, TLS next, then the session."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Self

import trio

from p2p.errors import ConfigError, TransportError
from p2p.net.admission import Admission, ListenLimits, Refusal
from p2p.net.tls import Contact, Endpoint

_log = logging.getLogger(__name__)
_BACKLOG = 128
# Out of file descriptors or memory: what is open must end first.
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS = 0.1

Handler = Callable[[Contact], Awaitable[None]]
Admit = Callable[[str], bool]


class Listener:
    """A port on which neighbours are accepted.

    Attributes:
        port: the one the kernel gave, where 0 was asked for.
        counts: how many were accepted, and why others were not, by short sentence.

    """

    def __init__(self, sock: trio.socket.SocketType, limits: ListenLimits) -> None:
        """Take over a listening TCP socket, for example one that systemd opened."""
        self._socket = sock
        self._limits = limits
        self._admission = Admission(limits)
        self.port: int = sock.getsockname()[1]
        self.counts: Counter[str] = Counter()

    @classmethod
    async def open(
        cls,
        port: int,
        *,
        host: str | None = None,
        limits: ListenLimits = ListenLimits(),  # noqa: B008 - frozen
    ) -> Self:
        """Listen on a port, with IPv4 and IPv6 unless a host is named; 0 is any.

        Raises:
            ConfigError: the port is taken, or the host is not this machine's.

        """
        where = f"listen {host or '*'}:{port}"
        try:
            sock = await (_bind_all(port) if host is None else _bind(host, port))
        except OSError as error:
            hint = "Is another agent running here? Stop it or choose another port."
            raise ConfigError(
                where,
                (error.strerror or str(error)).lower(),
                hint=hint if error.errno == errno.EADDRINUSE else None,
            ) from error
        sock.listen(_BACKLOG)
        return cls(sock, limits)

    async def serve(
        self, endpoint: Endpoint, handler: Handler, *, admit: Admit = lambda _: True
    ) -> None:
        """Accept neighbours until cancelled, then close the port.

        Args:
            endpoint: this device.
            handler: called with each contact, in a task of its own; the contact is
                closed when it returns. What it raises ends the listener.
            admit: whether an address may connect at all.

        """
        with self._socket:
            async with trio.open_nursery() as nursery:
                while True:
                    sock, address = await self._accept()
                    refusal = (
                        self._admission.knock(address, trio.current_time())
                        if admit(address)
                        else Refusal.NOT_HERE
                    )
                    if refusal is None:
                        nursery.start_soon(
                            self._receive, endpoint, handler, sock, address
                        )
                    else:
                        sock.close()
                        self._count(refusal, address)

    async def _accept(self) -> tuple[trio.socket.SocketType, str]:
        while True:
            try:
                sock, name = await self._socket.accept()
            except OSError as error:
                # The client left already, or the network said so (accept(2)).
                self._count(f"accept: {error.strerror}", "?")
                if error.errno in _OUT_OF:
                    await trio.sleep(_PAUSE_SECONDS)
            else:
                return sock, _address(name)

    async def _receive(
        self,
        endpoint: Endpoint,
        handler: Handler,
        sock: trio.socket.SocketType,
        address: str,
    ) -> None:
        contact = await self._meet(endpoint, sock, address)
        if contact is None:
            return
        self.counts["accepted"] += 1
        self._admission.enter(address)
        try:
            await handler(contact)
        finally:
            self._admission.leave(address)
            with trio.CancelScope(shield=True):
                await contact.stream.aclose()

    async def _meet(
        self, endpoint: Endpoint, sock: trio.socket.SocketType, address: str
    ) -> Contact | None:
        """Shake hands within the limits; None if that came to nothing."""
        key = object()
        with trio.move_on_after(self._limits.handshake) as scope:
            self._admission.begin(key, address, scope.cancel)
            try:
                stream = trio.SocketStream(sock)
                return await endpoint.meet(stream, address, server_side=True)
            except TransportError as error:
                self._count(str(error).removeprefix(f"{address}: "), address)
                return None
            finally:
                self._admission.end(key)
        self._count("the handshake took too long", address)
        return None

    def _count(self, why: str, address: str) -> None:
        self.counts[why] += 1
        # Each new reason is told once, so that a flood cannot fill the log.
        level = logging.INFO if self.counts[why] == 1 else logging.DEBUG
        _log.log(level, "no neighbour from %s: %s", address, why)


async def _bind_all(port: int) -> trio.socket.SocketType:
    """One socket for both families, or for IPv4 where the kernel has no IPv6."""
    try:
        sock = trio.socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return await _bind("0.0.0.0", port)  # noqa: S104 - all networks, see `admit`
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return await _bound(sock, ("::", port))


async def _bind(host: str, port: int) -> trio.socket.SocketType:
    found = await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, name = found[0]
    return await _bound(trio.socket.socket(family, kind, protocol), name)


async def _bound(
    sock: trio.socket.SocketType, name: tuple[object, ...]
) -> trio.socket.SocketType:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await sock.bind(name)
    except BaseException:
        sock.close()
        raise
    return sock


def _address(name: tuple[object, ...]) -> str:
    """Return a socket's name as an address: IPv4 as such, link-local with its scope."""
    address = ipaddress.ip_address(str(name[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if address.is_link_local:
            scope = name[3]
            with contextlib.suppress(OSError):  # the interface is gone already
                scope = socket.if_indextoname(int(str(scope)))
            return f"{address}%{scope}"
    return str(address)
