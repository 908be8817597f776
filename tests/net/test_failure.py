import errno
import ssl

import pytest
import trio

from p2p.errors import (
    ConnectError,
    TransportClosedError,
    TransportError,
    TransportTimeoutError,
)
from p2p.net.failure import connect_failure, socket_failure, tls_failure


def broken(number: int) -> trio.BrokenResourceError:
    error = trio.BrokenResourceError("socket connection broken")
    error.__cause__ = OSError(number, "what the kernel says")
    return error


@pytest.mark.parametrize(
    "number, kind, text",
    [
        (errno.ECONNRESET, TransportClosedError, "closed the connection"),
        (errno.EPIPE, TransportClosedError, "closed the connection"),
        (errno.ETIMEDOUT, TransportTimeoutError, "stopped answering"),
        (errno.EHOSTUNREACH, TransportTimeoutError, "stopped answering"),
        (errno.ENOBUFS, TransportClosedError, "No buffer space available"),
    ],
)
def test_what_the_kernel_says_is_told(
    number: int, kind: type[TransportError], text: str
) -> None:
    for error in (broken(number), OSError(number, "")):
        failure = socket_failure(error)
        assert type(failure) is kind
        assert text in str(failure)


def test_a_stream_that_broke_without_a_reason_was_closed() -> None:
    assert "closed" in str(socket_failure(trio.BrokenResourceError()))


@pytest.mark.parametrize(
    "reason, kind, text",
    [
        ("TLSV1_ALERT_UNKNOWN_CA", ConnectError, "another authority"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", ConnectError, "showed no certificate"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", ConnectError, "has ended"),
        ("TLSV1_ALERT_INTERNAL_ERROR", ConnectError, "TLS alert internal error"),
        ("UNEXPECTED_EOF_WHILE_READING", TransportClosedError, "without a goodbye"),
        ("WRONG_VERSION_NUMBER", ConnectError, "wrong version number"),
    ],
)
def test_what_openssl_says_is_told(
    reason: str, kind: type[TransportError], text: str
) -> None:
    error = ssl.SSLError(1, "what OpenSSL says")
    error.reason = reason
    failure = tls_failure(error)
    assert type(failure) is kind
    assert text in str(failure)


def test_what_openssl_says_without_a_word_for_it_is_told() -> None:
    assert "odd" in str(tls_failure(ssl.SSLError(1, "odd")))


def test_other_faults_of_a_certificate_are_told_in_openssl_s_words() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = 23
    error.verify_message = "certificate revoked"
    assert str(tls_failure(error)) == (
        "its certificate is not accepted: certificate revoked"
    )


def test_why_a_dial_failed_is_told_in_a_few_words() -> None:
    assert connect_failure(OSError(errno.ETIMEDOUT, "x")) == "no answer"
    assert connect_failure(OSError(errno.EACCES, "Permission denied")) == (
        "permission denied"
    )
    both = OSError("all attempts failed")
    refused = OSError(errno.ECONNREFUSED, "x")
    both.__cause__ = ExceptionGroup("all", [refused, OSError(errno.ENETDOWN, "y")])
    assert connect_failure(both) == "nothing listens there"
    assert connect_failure(OSError("no words")) == "no words"
