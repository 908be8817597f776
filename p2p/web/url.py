"""URLs of servers: what is compared, joined and shown of them."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from p2p.errors import ConfigError

_PORTS = {"http": 80, "https": 443}
_MAX_SHOWN = 300


class Server(NamedTuple):
    """What must be equal for two URLs to be answered by the same server."""

    scheme: str
    host: str
    port: int


def server_of(url: str) -> Server:
    """Return a URL's server; ConfigError unless it is a usable http or https URL."""
    end = url.find("/", len("https://"))
    return _parse_server(url if end < 0 else url[:end])


@lru_cache(maxsize=256)
def _parse_server(start: str) -> Server:
    try:
        parts = urlsplit(start)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(show(start), f"is not a URL: {error}") from None
    if scheme not in _PORTS or not host:
        raise ConfigError(
            show(start) or "URL",
            "is not an http:// or https:// URL",
            hint="Give the repository's URL as https://HOST/PATH.",
        )
    if not start.isascii() or not start.isprintable() or " " in start:
        raise ConfigError(show(start), "holds characters that no URL may hold")
    return Server(scheme, host, port or _PORTS[scheme])


def show(url: str) -> str:
    """Return a URL for people: no password and no query, which may hold secrets."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _printable(url)
    authority, slash, path = rest.partition("/")
    authority = authority.rpartition("@")[2]
    path, query, _ = path.partition("?")
    return _printable(f"{scheme}://{authority}{slash}{path}{query and '?…'}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text[:_MAX_SHOWN])


def split_user(url: str) -> tuple[str, str | None]:
    """Return the URL without `user:password@`, and these as a Basic credential."""
    server_of(url)
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    bare = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    name, _, password = user.partition(":")
    return bare, basic(unquote(name), unquote(password))


def basic(user: str, password: str) -> str:
    """Return the value of an `Authorization` header for a user (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
