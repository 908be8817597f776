"""What is asked of an HTTP server and what it answers; values only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import BinaryIO, NamedTuple

from p2p import __version__
from p2p.errors import CredentialsError, OriginError, OriginNotFoundError
from p2p.web.url import show

USER_AGENT = f"ostree-p2p/{__version__}"
_ABSENT = (404, 403, 410)
_MAX_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Access:
    """How servers are reached; one object for many requests, compared by identity.

    A transfer that brings less than `low_speed_bytes` a second for `low_speed_seconds`
    is given up, and so is one on which nothing comes at all. libostree allows 1000
    bytes; here eight transfers together may be so slow.
    """

    ca_path: str | None = None
    client_cert_path: str | None = None
    client_key_path: str | None = None
    client_pem: bytes | None = field(default=None, repr=False)
    """Client certificate and key in memory, instead of the two paths."""
    permissive: bool = False
    """Accept any certificate of the server (`tls-permissive`)."""
    proxy: str | None = field(default=None, repr=False)
    """Proxy's URL; None: as `http_proxy`, `https_proxy`, `no_proxy` say."""
    http2: bool = True
    connect_seconds: float = 30
    low_speed_bytes: int = 125
    low_speed_seconds: int = 30
    user_agent: str = USER_AGENT

    @property
    def has_identity(self) -> bool:
        """Tell whether a client certificate is shown to servers that ask for one."""
        return self.client_pem is not None or self.client_cert_path is not None


DEFAULT_ACCESS = Access()


@lru_cache(maxsize=32)
def anonymous(access: Access) -> Access:
    """Return the access without its client certificate."""
    return replace(access, client_pem=None, client_cert_path=None, client_key_path=None)


class Upload(NamedTuple):
    """A request's body read from an open file, `size` bytes from its start."""

    file: BinaryIO
    size: int


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; a body longer than `max_bytes` is refused.

    `headers` go to whoever answers in the end; `private` ones (credentials, the
    namespace) only to the URL's own server, not to where it redirects. GET and HEAD
    follow redirects, the other methods do not.
    """

    url: str
    max_bytes: int
    method: str = "GET"
    headers: Headers = ()
    private: Headers = field(default=(), repr=False)
    body: bytes | Upload | None = None
    access: Access = DEFAULT_ACCESS
    want_headers: bool = True
    """False where many small answers are fetched and nobody reads their headers."""


class Response(NamedTuple):
    """An answer, whatever its status.

    Attributes:
        status: HTTP's status code.
        headers: by lower-case name; empty unless they were wanted.
        body: the whole body, or what comes after its last Chunk; of an answer that
            is no success at most the first 4 KiB.
        url: where the answer came from, after redirects.
        received: bytes of the body as transferred.
        retry_after: seconds the server asks to wait, or None.
        trusted: credentials were sent to this server.

    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    received: int
    retry_after: float | None
    trusted: bool

    @property
    def ok(self) -> bool:
        """Tell whether the status is one of success."""
        return 200 <= self.status < 300

    def check(self) -> Response:
        """Return self, or raise the OriginError that the status stands for."""
        if self.ok:
            return self
        raise self.error()

    def error(self) -> OriginError:
        """Return the error that the status stands for.

        403 is "not there" (S3 says so for missing objects), unless credentials were
        sent to the server: then they are what it refuses.
        """
        message = f"{show(self.url)}: {self._reason()}"
        if self.status in (401, 407) or (self.status == 403 and self.trusted):
            return CredentialsError(message, status=self.status)
        if self.status in _ABSENT:
            return OriginNotFoundError(message, status=self.status)
        if self.status == 400 and b"SSL certificate" in self.body:
            return CredentialsError(
                message,
                status=400,
                hint="The server wants a client certificate: set tls-client-cert-path "
                "and tls-client-key-path, or use credentials with client_auth.p12.",
            )
        if 300 <= self.status < 400:
            target = self.headers.get("location")
            message += f", to {show(target)}" if target else ""
            return OriginError(
                message,
                status=self.status,
                hint="Use the URL it redirects to; redirects of this request are not "
                "followed.",
            )
        return OriginError(message, status=self.status)

    def _reason(self) -> str:
        try:
            phrase = f"HTTP {self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            phrase = f"HTTP {self.status}"
        if self.status == 407:
            phrase += " (the proxy asks for it)"
        text = _explanation(self.body)
        return f"{phrase}: {text}" if text else phrase


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header asks to wait (RFC 9110, 10.2.3).

    A date is compared with the server's own, since this device's clock may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime(headers.get("date", ""))
        return max((until - now).total_seconds(), 0)
    except (ValueError, TypeError, OverflowError):
        return None


def _explanation(body: bytes) -> str:
    """Return what a server says of its error, made safe to print."""
    if body.lstrip()[:1] == b"<":
        return ""
    try:
        # TreeHub: {"code":…, "description":…, "errorId":…}; OAuth2: RFC 6749, 5.2.
        fields = json.loads(body)
        text = fields.get("description") or fields.get("error_description")
        text = str(text or fields.get("error") or fields.get("code") or "")
    except (ValueError, AttributeError, RecursionError):
        text = body.decode("utf-8", "replace")
    text = " ".join(text.split())[:_MAX_SHOWN]
    return "".join(c if c.isprintable() else "�" for c in text)
