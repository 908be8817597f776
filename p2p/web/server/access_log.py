"""What a server tells of each request it answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from p2p.web.server.exchange import Request, Response


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRecord:
    """One request; method and path are `-` where the head could not be read."""

    peer: str
    method: str
    path: str
    status: int
    received_bytes: int
    sent_bytes: int
    seconds: float
    user_agent: str


AccessLog = Callable[[AccessRecord], None]


def record(request: Request, response: Response, sent_bytes: int) -> AccessRecord:
    """Return the record of a request whose answer has just been sent."""
    return AccessRecord(
        peer=request.peer,
        method=request.method,
        path=request.path,
        status=response.status,
        received_bytes=request.body.received_bytes,
        sent_bytes=sent_bytes,
        seconds=trio.current_time() - request.began,
        user_agent=request.headers.get("user-agent", ""),
    )
