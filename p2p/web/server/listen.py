"""Sockets to listen on: `HOST:PORT`, `[v6]:PORT`, `:PORT` or a Unix socket's path."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from p2p.errors import ConfigError

_BACKLOG = 512


def open_listeners(address: str) -> list[socket.socket]:
    """Return sockets that listen on an address; port 0 lets the system choose.

    A host name may stand for several addresses; an empty one stands for all of
    IPv6 and IPv4. A path contains a `/`.

    Raises:
        ConfigError: the address is malformed, unknown or taken.

    """
    try:
        if "/" in address:
            return [_listen_unix(address)]
        host, port = parse_address(address)
        if not host:
            return [_listen_any(port)]
        return _listen_host(host, port)
    except (OSError, UnicodeError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise ConfigError(
            f"listen address {address}",
            getattr(error, "strerror", None) or str(error),
            hint="Another program listens there: stop it or choose another port."
            if taken
            else "Give an address of this machine as HOST:PORT.",
        ) from None


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port; ConfigError unless it is `HOST:PORT`."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(
            f"listen address {address[:100]}",
            "is not HOST:PORT",
            hint="Examples: 0.0.0.0:8084, [::1]:8084, :8084.",
        )
    return host, int(port)


def _listen_any(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(
                ("", port),
                family=socket.AF_INET6,
                dualstack_ipv6=True,
                backlog=_BACKLOG,
            )
    return socket.create_server(("", port), backlog=_BACKLOG)


def _listen_host(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[socket.socket] = []
    try:
        for family, (name, *rest) in dict.fromkeys((f, a) for f, *_, a in found):
            if port == 0 and listeners:
                # One port for all addresses of the name.
                rest[0] = listeners[0].getsockname()[1]
            listeners.append(
                socket.create_server((name, *rest), family=family, backlog=_BACKLOG)
            )
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listen_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                raise
            # Left behind by a process that was killed.
            os.unlink(path)
            listener.bind(path)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_abandoned(path: str) -> bool:
    """Tell whether this is a socket at which nobody listens."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def name_of(address: object) -> str:
    """Return a socket's address for people and for use in a URL."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(address) if address else "local"
