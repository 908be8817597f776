"""One HTTP request and its answer as values, and the error body every answer uses.

Handlers take a `Request` and return a `Response`, or raise `RefusedError`. Nothing
here touches a socket: `p2p.web.server.http1` reads and writes what these describe.
"""

from __future__ import annotations

import json
import os
import urllib.parse
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

OCTETS = "application/octet-stream"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class RefusedError(Exception):
    """A request is answered with an error; the server sends it as JSON.

    Attributes:
        status: HTTP status, 400 or above.
        code: short word for programs.
        description: sentence for people.
        headers: further headers of the answer.

    """

    def __init__(
        self,
        status: int,
        code: str,
        description: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(f"{status} {code}: {description}")
        self.status = status
        self.code = code
        self.description = description
        self.headers = headers


class ClientGoneError(Exception):
    """The client left in the middle of its request; there is nobody to answer."""


class Body(Protocol):
    """A request's body, read at most once, at the reader's pace."""

    length: int | None
    """Bytes as announced; None when it comes in chunks."""
    received_bytes: int
    """What has been read so far."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body piece by piece; RefusedError when it is malformed."""


class NoBody:
    """The body of a request that has none."""

    length: int | None = 0
    received_bytes = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield nothing."""
        return self

    async def __anext__(self) -> bytes:
        """Be at the end."""
        raise StopAsyncIteration


@dataclass(slots=True)
class Request:
    """What a client asks for.

    Attributes:
        method: in capitals.
        path: percent-decoded, begins with `/`.
        query: as sent, without its `?`.
        headers: names in lower case; several of one name are joined by `, `.
        peer: address of the client, for logs.
        params: what the router found in the path.
        version: of HTTP, `1.1` or `1.0`.
        began: when its head was complete, on trio's clock.

    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=NoBody)
    peer: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    version: str = "1.1"
    began: float = 0

    async def read(self, limit: int) -> bytes:
        """Return the whole body; RefusedError (413) if it exceeds `limit` bytes."""
        if self.body.length is not None and self.body.length > limit:
            raise too_large(limit)
        pieces = []
        left = limit
        async for piece in self.body:
            left -= len(piece)
            if left < 0:
                raise too_large(limit)
            pieces.append(piece)
        return b"".join(pieces)


def too_large(limit: int) -> RefusedError:
    """Return the refusal of a body of more than `limit` bytes."""
    return RefusedError(413, "too_large", f"The body exceeds {limit} bytes.")


def split_target(target: str) -> tuple[str, str]:
    """Return the decoded path and the query of a request's target.

    RefusedError (400) if the path is no UTF-8, or there is no URL around it.
    """
    path, _, query = target.partition("?")
    try:
        if not path.startswith("/"):
            # The absolute form, which every server must take (RFC 9112 §3.2.2).
            path = urllib.parse.urlsplit(path).path or "/"
        if "%" in path:
            path = urllib.parse.unquote(path, errors="strict")
    except ValueError:
        raise RefusedError(400, "bad_request", "The path is malformed.") from None
    return path, query


@dataclass(slots=True)
class FileBody:
    """A part of an open file as an answer's body; whoever holds it closes it."""

    fd: int
    offset: int
    length: int

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


@dataclass(slots=True)
class Response:
    """An answer. A generator as body is sent in chunks as it yields.

    `length` is what a HEAD request is told where there is no body to measure.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | FileBody | AsyncGenerator[bytes, None] = b""
    length: int | None = None


Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request, or raises RefusedError."""


def text(status: int, body: str) -> Response:
    """Return an answer in plain text."""
    return Response(status, (("Content-Type", TEXT),), body.encode())


def as_json(status: int, value: Any) -> Response:
    """Return an answer in JSON."""
    return Response(status, (("Content-Type", JSON),), json.dumps(value).encode())


def error_response(error: RefusedError, *, error_id: str | None = None) -> Response:
    """Return the answer to a refused request.

    The body's form is that of TreeHub and its relatives (libats `ErrorRepresentation`):
    `code`, `description`, `cause`, and `errorId`, which a log entry carries too.
    """
    answer = as_json(
        error.status,
        {
            "code": error.code,
            "description": error.description,
            "cause": None,
            "errorId": error_id or str(uuid.uuid4()),
        },
    )
    answer.headers += error.headers
    return answer


def reason(status: int) -> str:
    """Return the standard phrase of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
