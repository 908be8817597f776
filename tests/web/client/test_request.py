"""What an answer of failure says of itself."""

import pytest

from p2p.web.client.request import Access, Response, anonymous, parse_retry_after


def response(status: int, body: bytes = b"", **headers: str) -> Response:
    return Response(status, headers, body, "http://h/x", len(body), None, False)


@pytest.mark.parametrize(
    "status, body, text",
    [
        (404, b"", "HTTP 404 Not Found"),
        (404, b"<html>...", "HTTP 404 Not Found"),
        (409, b'{"code":"object_exists"}', "HTTP 409 Conflict: object_exists"),
        (
            412,
            b'{"code":"commit_missing","description":"no such commit"}',
            "HTTP 412 Precondition Failed: no such commit",
        ),
        (
            400,
            b'{"error":"invalid_client","error_description":"who?"}',
            "HTTP 400 Bad Request: who?",
        ),
        (500, b"[]", "HTTP 500 Internal Server Error: []"),
        (500, b"\xff\x00oops", "HTTP 500 Internal Server Error: \ufffd\ufffdoops"),
        (500, b"x" * 999, "HTTP 500 Internal Server Error: " + "x" * 200),
        (500, b"[" * 4000, "HTTP 500 Internal Server Error: " + "[" * 200),
        (299 + 300, b"", "HTTP 599"),
        (407, b"", "HTTP 407 Proxy Authentication Required (the proxy asks for it)"),
    ],
)
def test_the_reason_is_made_of_status_and_body(
    status: int, body: bytes, text: str
) -> None:
    assert str(response(status, body).error()) == f"http://h/x: {text}"


def test_success_is_no_error() -> None:
    good = response(204)
    assert good.check() is good


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({}, None),
        ({"retry-after": "120"}, 120),
        ({"retry-after": "9" * 50}, 999999999),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT",
                "date": "Wed, 21 Oct 2015 07:29:00 GMT",
            },
            0,
        ),
    ],
)
def test_retry_after_is_read_in_both_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert parse_retry_after(headers) == seconds


def test_secrets_are_not_in_what_is_printed() -> None:
    access = Access(client_pem=b"secret", proxy="http://me:secret@proxy")
    assert "secret" not in repr(access)
    assert access.has_identity
    assert not anonymous(access).has_identity
    assert anonymous(access) is anonymous(access)
