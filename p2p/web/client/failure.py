"""What libcurl's error codes mean to us.

The numbers are CURLcode of `curl.h`, which never change.
"""

from __future__ import annotations

from collections.abc import Callable

from p2p.errors import (
    ConfigError,
    ConnectError,
    Error,
    LimitError,
    OriginError,
    TransportClosedError,
    TransportError,
    TransportTimeoutError,
)

CERTIFICATE_HINT = (
    "Install the ca-certificates package, or set tls-ca-path to the CA that signed "
    "the server's certificate."
)
_IDENTITY_HINT = (
    "The server did not take the TLS connection. If it wants a client certificate, "
    "set tls-client-cert-path and tls-client-key-path, or use credentials with "
    "client_auth.p12."
)


class TlsError(ConnectError):
    """TLS was not agreed on; trying again gives the same result."""

    hint = _IDENTITY_HINT


class ResumeRefusedError(OriginError):
    """The server does not send the rest of a file, but perhaps the whole."""


def _untrusted(message: str) -> Error:
    return TlsError(message, hint=CERTIFICATE_HINT)


def _not_http(message: str) -> Error:
    return OriginError(message, hint="Check that the URL is one of an HTTP server.")


_UNSUPPORTED_PROTOCOL = 1
_SSL_CONNECT = 35
_CA_FILE = 77
_SEND, _RECV = 55, 56
_KINDS: dict[int, Callable[[str], Error]] = {
    3: lambda message: ConfigError("URL", message),
    5: ConnectError,  # proxy's name not resolved
    6: ConnectError,  # name not resolved
    7: ConnectError,
    8: _not_http,  # weird server reply
    16: TransportClosedError,  # HTTP/2 framing
    18: TransportClosedError,  # body ends early
    28: TransportTimeoutError,
    33: ResumeRefusedError,
    35: TlsError,
    45: ConnectError,  # local interface
    52: TransportClosedError,  # nothing came
    53: TlsError,
    54: TlsError,
    55: TransportClosedError,
    56: TransportClosedError,
    58: TlsError,  # our certificate or key
    59: TlsError,
    60: _untrusted,
    63: LimitError,  # longer than MAXFILESIZE
    66: TlsError,
    77: _untrusted,  # CA file not usable
    80: TlsError,
    82: TlsError,
    83: TlsError,
    90: TlsError,
    91: TlsError,
    92: TransportClosedError,  # HTTP/2 stream
    97: ConnectError,  # proxy handshake
    98: TlsError,  # client certificate required
    100: LimitError,  # headers beyond libcurl's own bound
}


def error_of(code: int, message: str, url: str) -> Error:
    """Return the error for a CURLcode; `url` is fit to be shown."""
    if code == _CA_FILE and not message:  # GnuTLS does not say more
        message = "the file of CA certificates cannot be read"
    text = f"{url}: {message or f'libcurl error {code}'}"
    lower = message.lower()
    if code == _UNSUPPORTED_PROTOCOL:
        return _not_http(text)
    if code in (_SEND, _RECV) and "alert" in lower:
        # TLS 1.3 learns only after the handshake that its certificate was refused.
        return TlsError(text)
    if code == _RECV and "headers" in lower:
        return LimitError(text)
    if code == _SSL_CONNECT and ("reset" in lower or "syscall" in lower):
        return ConnectError(text)
    return _KINDS.get(code, TransportError)(text)
