"""libcurl's error codes, where no server on loopback can bring them about."""

import pytest

from p2p.errors import (
    ConnectError,
    Error,
    LimitError,
    TransportClosedError,
    TransportError,
)
from p2p.web.client.failure import TlsError, error_of


@pytest.mark.parametrize(
    "code, message, kind",
    [
        (5, "Could not resolve proxy", ConnectError),
        (16, "", TransportClosedError),
        (35, "unexpected eof while reading", TlsError),
        (35, "Recv failure: Connection reset by peer", ConnectError),
        (56, "Recv failure: Connection reset by peer", TransportClosedError),
        (56, "Too large response headers: 307301 > 307200", LimitError),
        (92, "stream was not closed cleanly", TransportClosedError),
        (97, "SOCKS handshake failed", ConnectError),
        (100, "Too large response headers", LimitError),
        (43, "", TransportError),
        (77, "", TlsError),
    ],
)
def test_a_code_becomes_the_error_that_says_whose_fault_it_is(
    code: int, message: str, kind: type[Error]
) -> None:
    error = error_of(code, message, "http://h/x")
    assert type(error) is kind
    assert str(error).startswith("http://h/x: ")
    assert message in str(error)
