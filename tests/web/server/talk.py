"""A plain HTTP client for tests: h11 in its client role over a trio stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11
import trio

from p2p.web.server.exchange import Handler, Request, Response, text
from p2p.web.server.http1 import Server
from p2p.web.server.limits import Limits
from p2p.web.server.listen import open_listeners

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Headers = Sequence[tuple[str, str]]


def post(length: int) -> bytes:
    """The head of a request with a body of that length."""
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length


async def echo(request: Request) -> Response:
    """Answer with what was asked."""
    body = await request.read(1 << 20)
    words = [request.method, request.path, request.query, body.decode("latin-1")]
    return text(200, "|".join(words))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Talk:
    """One keep-alive connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def ask(
        self,
        method: str,
        target: str,
        *,
        headers: Headers = (),
        body: bytes | None = None,
    ) -> Answer:
        lines = [("Host", "test"), *headers]
        if body is not None:
            lines.append(("Content-Length", str(len(body))))
        await self.send(h11.Request(method=method, target=target, headers=lines))
        if body:
            await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())
        answer = await self.read_answer()
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        return answer

    async def send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await self.stream.send_all(data)

    async def read_answer(self) -> Answer:
        """Read an answer, even to bytes that h11 did not send."""
        if self._h11.our_state is h11.IDLE:
            host = [("Host", "test")]
            self._h11.send(h11.Request(method="GET", target="/", headers=host))
        response: h11.Response | None = None
        body = b""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(bytes(await self.stream.receive_some(65536)))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.InformationalResponse):
                pass
            else:
                assert response is not None
                headers = {n.decode(): v.decode() for n, v in response.headers}
                return Answer(response.status_code, headers, body)

    async def is_closed(self) -> bool:
        """Whether the server has closed the connection; waits for it or for data."""
        return not await self.stream.receive_some(1)


@dataclass(slots=True)
class Running:
    """A server that runs in a test."""

    port: int
    shutdown: trio.Event

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    @asynccontextmanager
    async def talk(self) -> AsyncIterator[Talk]:
        async with await self.connect() as stream:
            yield Talk(stream)

    async def ask(
        self,
        method: str,
        target: str,
        *,
        headers: Headers = (),
        body: bytes | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        async with self.talk() as talk:
            return await talk.ask(method, target, headers=headers, body=body)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes as they are and return all that comes until the end."""
        async with await self.connect() as stream:
            await stream.send_all(data)
            await stream.send_eof()
            pieces = [piece async for piece in stream]
            return b"".join(pieces)


@asynccontextmanager
async def serving(
    handler: Handler, *, limits: Limits | None = None, **options: Any
) -> AsyncIterator[Running]:
    """Run a server on a free port of the loopback interface."""
    listeners = open_listeners("127.0.0.1:0")
    port = listeners[0].getsockname()[1]
    shutdown = trio.Event()
    server = Server(handler, limits=limits, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: server.serve(listeners, shutdown=shutdown))
        yield Running(port, shutdown)
        nursery.cancel_scope.cancel()
