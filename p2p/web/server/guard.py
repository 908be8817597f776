"""Who may speak to a server: passwords and tokens from a file, and TLS contexts."""

from __future__ import annotations

import hmac
import os
import ssl
from collections.abc import Sequence

from p2p.errors import ConfigError
from p2p.web.server.exchange import Handler, RefusedError, Request, Response
from p2p.web.url import basic

_MAX_FILE_BYTES = 1 << 20


class Guard:
    """A handler that lets only requests with known credentials through."""

    def __init__(
        self,
        handler: Handler,
        credentials: Sequence[str],
        *,
        open_paths: frozenset[str] = frozenset(),
    ) -> None:
        """`credentials` are values of `Authorization`; `open_paths` need none."""
        self._handler = handler
        self._known = [value.encode() for value in credentials]
        self._open_paths = open_paths
        kinds = dict.fromkeys(value.partition(" ")[0] for value in credentials)
        self._challenge = ", ".join(f'{kind} realm="treehub"' for kind in kinds)

    async def __call__(self, request: Request) -> Response:
        """Answer the request, or raise RefusedError 401."""
        if request.path not in self._open_paths and not self._knows(request):
            raise RefusedError(
                401,
                "unauthorized",
                "This server wants credentials.",
                headers=(("WWW-Authenticate", self._challenge),),
            )
        return await self._handler(request)

    def _knows(self, request: Request) -> bool:
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        # The scheme's name is compared without regard to case (RFC 9110 §11.1).
        given = f"{kind.capitalize()} {value.strip()}".encode()
        # All are compared, so that time tells nothing about which came close.
        return sum(hmac.compare_digest(given, known) for known in self._known) > 0


def load_credentials(path: str) -> tuple[str, ...]:
    """Return the values of `Authorization` that a file allows.

    Each line is `basic USER:PASSWORD` or `bearer TOKEN`; empty lines and those that
    begin with `#` do not count.

    Raises:
        ConfigError: the file cannot be read, or a line is neither.

    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read(_MAX_FILE_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, str(getattr(error, "strerror", error))) from None
    found = []
    for number, line in enumerate(lines, 1):
        kind, _, value = line.strip().partition(" ")
        user, colon, password = value.strip().partition(":")
        if not kind or kind.startswith("#"):
            continue
        if kind == "bearer" and value.strip():
            found.append(f"Bearer {value.strip()}")
        elif kind == "basic" and colon:
            found.append(basic(user, password))
        else:
            raise ConfigError(
                f"{path}:{number}",
                "is not understood",
                hint="Write `basic USER:PASSWORD` or `bearer TOKEN` in each line.",
            )
    if not found:
        raise ConfigError(path, "holds no credentials, so nobody could come in")
    return tuple(found)


def server_context(
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str],
    *,
    client_ca: str | os.PathLike[str] | None = None,
) -> ssl.SSLContext:
    """Return the TLS context of a server.

    Args:
        certificate: file with the server's certificate chain, PEM.
        key: file with its private key, PEM.
        client_ca: file with the CA whose client certificates are demanded.

    Raises:
        ConfigError: a file cannot be used.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A key that wants a passphrase is an error, not a question on the terminal.
        context.load_cert_chain(certificate, key, password=_no_passphrase)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
    except (OSError, ValueError) as error:
        files = ", ".join(str(file) for file in (certificate, key, client_ca) if file)
        raise ConfigError(
            files,
            str(error.args[-1] if error.args else error),
            hint="Give PEM files: the certificate, its unencrypted key, the CA.",
        ) from None
    return context


def _no_passphrase() -> str:
    raise ValueError("the private key is encrypted")
