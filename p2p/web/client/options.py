"""A remote's options that say how its servers are reached.

Names and meanings are those of ostree.repo-config(5).
"""

from __future__ import annotations

import os
from dataclasses import replace
from urllib.parse import urlsplit

from p2p.errors import ConfigError
from p2p.ostree.config import RemoteConfig
from p2p.web.client.credentials import Credentials
from p2p.web.client.request import Access, Headers
from p2p.web.url import show

_TRUE = ("true", "1")
_FALSE = ("false", "0")
_FILES = ("tls-ca-path", "tls-client-cert-path", "tls-client-key-path")
_SECRET_HEADERS = ("authorization", "cookie")
_PROXIES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def is_protected(
    remote: RemoteConfig, credentials: Credentials, headers: Headers = ()
) -> bool:
    """Tell whether the remote gives its content to those only who prove who they are.

    That is assumed wherever anything is shown to it that is a secret.
    """
    urls = (remote.url, remote.content_url or "")
    return (
        credentials.needed
        or "tls-client-cert-path" in remote.options
        or any("@" in urlsplit(url).netloc for url in urls)
        or any(name.lower() in _SECRET_HEADERS for name, _ in headers)
    )


def access_of(remote: RemoteConfig, base: Access) -> Access:
    """Return `base` with the remote's TLS, proxy and HTTP/2 options put on top.

    Raises ConfigError, which names the remote and the option.
    """
    options = remote.options
    if state := options.get("unconfigured-state"):
        raise _error(remote, "unconfigured-state", state)
    for option in _FILES:
        path = options.get(option)
        if path is not None and not os.access(path, os.R_OK):
            raise _error(remote, option, f"{path!r} cannot be read")
    certificate = options.get("tls-client-cert-path")
    key = options.get("tls-client-key-path")
    if (certificate is None) != (key is None):
        raise _error(
            remote,
            "tls-client-cert-path",
            "and tls-client-key-path must be given together",
        )
    return replace(
        base,
        ca_path=options.get("tls-ca-path", base.ca_path),
        client_cert_path=certificate or base.client_cert_path,
        client_key_path=key or base.client_key_path,
        permissive=_boolean(remote, "tls-permissive", default=base.permissive),
        proxy=_proxy(remote, base.proxy),
        http2=_boolean(remote, "http2", default=base.http2),
    )


def _boolean(remote: RemoteConfig, option: str, *, default: bool) -> bool:
    value = remote.options.get(option)
    if value is None:
        return default
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise _error(remote, option, f"{value!r} is neither true nor false")


def _proxy(remote: RemoteConfig, default: str | None) -> str | None:
    url = remote.options.get("proxy")
    if url is None:
        return default
    scheme, separator, host = url.partition("://")
    if not separator:
        scheme, host = "http", url
    if scheme not in _PROXIES or not host or not url.isascii() or not url.isprintable():
        raise _error(remote, "proxy", f"{show(url)!r} is not the URL of a proxy")
    return url


def _error(remote: RemoteConfig, option: str, reason: str) -> ConfigError:
    return ConfigError(f'[remote "{remote.name}"] {option}', reason)
