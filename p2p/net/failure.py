"""What OpenSSL and the kernel say of a connection, as errors a person understands."""

from __future__ import annotations

import errno
import os
import ssl

from p2p.errors import (
    ConnectError,
    TransportClosedError,
    TransportError,
    TransportTimeoutError,
)

# X509_V_ERR_… of openssl/x509_vfy.h: every way to have no path to our authority,
# with 7 for another authority of the same name.
_STRANGER = frozenset({2, 7, 18, 19, 20, 21, 24, 29, 30, 31})
_WRONG_PURPOSE = 26
_STRANGER_HINT = (
    "Both devices must be in the same membership; in a fleet, both certificates must "
    "come from the authority that is configured on both."
)
_REFUSED = {
    "UNKNOWN_CA": "this device's certificate comes from another authority",
    "DECRYPT_ERROR": "this device's certificate was signed by another authority",
    "CERTIFICATE_REQUIRED": "this device showed no certificate",
    "BAD_CERTIFICATE": "this device's certificate is broken",
    "UNSUPPORTED_CERTIFICATE": "this device's certificate is of the wrong kind",
    "CERTIFICATE_UNKNOWN": "it does not accept this device's certificate",
    "CERTIFICATE_REVOKED": "this device's certificate was revoked",
    "CERTIFICATE_EXPIRED": "this device's certificate has ended",
    "PROTOCOL_VERSION": "it does not speak TLS 1.3",
    "NO_APPLICATION_PROTOCOL": "it speaks another version of the protocol",
}
_GONE = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN})
_SILENT = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})


def tls_failure(error: ssl.SSLError) -> TransportError:
    """Return our error for what OpenSSL says of the peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_failure(error)
    reason = getattr(error, "reason", None) or ""  # absent from one made in Python
    if isinstance(error, ssl.SSLEOFError) or "UNEXPECTED_EOF" in reason:
        return TransportClosedError("the other side vanished without a goodbye")
    _, alert, kind = reason.partition("_ALERT_")
    if alert:
        why = _REFUSED.get(kind, f"TLS alert {kind.lower().replace('_', ' ')}")
        return ConnectError(f"the other side refused: {why}", hint=_STRANGER_HINT)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return ConnectError("the other side showed no certificate", hint=_STRANGER_HINT)
    what = reason.lower().replace("_", " ") or str(error)
    return ConnectError(f"the other side does not speak TLS as expected: {what}")


def _certificate_failure(error: ssl.SSLCertVerificationError) -> ConnectError:
    if error.verify_code in _STRANGER:
        return ConnectError(
            "a stranger: its certificate comes from another authority",
            hint=_STRANGER_HINT,
        )
    if error.verify_code == _WRONG_PURPOSE:
        return ConnectError(
            "its certificate is not made for both ends of TLS",
            hint="A neighbour is client and server; issue certificates with both "
            "extended key usages, or with none.",
        )
    return ConnectError(f"its certificate is not accepted: {error.verify_message}")


def socket_failure(error: BaseException) -> TransportError:
    """Return our error for what the kernel says of the connection.

    Takes an OSError or what trio makes of one.
    """
    cause = error if isinstance(error, OSError) else error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if number in _SILENT:
        return TransportTimeoutError("the other side stopped answering")
    if number is None or number in _GONE:
        return TransportClosedError("the other side closed the connection")
    return TransportClosedError(f"the connection broke: {os.strerror(number)}")


def connect_failure(error: OSError) -> str:
    """Return in a few words why no connection was made."""
    causes = error.__cause__
    if isinstance(causes, BaseExceptionGroup):  # one a family of addresses
        causes = causes.exceptions[0]
    cause = causes if isinstance(causes, OSError) else error
    if cause.errno == errno.ETIMEDOUT:
        return "no answer"
    if cause.errno == errno.ECONNREFUSED:
        return "nothing listens there"
    return (cause.strerror or str(cause)).lower()
