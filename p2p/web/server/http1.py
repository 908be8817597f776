"""An HTTP/1.1 server on trio: h11 judges what comes in, `answer` writes what goes out.

The only module that imports h11. Reading a request's head costs h11 more than all
the rest of a small GET, so it is only asked about what `head_memory` does not know:
the first request of a connection and whatever is unlike it.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
import ssl
import uuid
from collections.abc import Mapping, Sequence

import h11
import trio

from p2p.web.server.access_log import AccessLog, record
from p2p.web.server.answer import Answer
from p2p.web.server.body import CountedFraming, IncomingBody
from p2p.web.server.exchange import (
    Body,
    ClientGoneError,
    Handler,
    NoBody,
    RefusedError,
    Request,
    Response,
    error_response,
    split_target,
)
from p2p.web.server.head_memory import HeadMemory
from p2p.web.server.limits import Limits
from p2p.web.server.link import Link, PlainLink, TLSLink
from p2p.web.server.listen import name_of
from p2p.web.server.pace import Pace, PacedLink

_log = logging.getLogger(__name__)

_ACCEPTS_AT_ONCE = 32
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# A descriptor may become free at any time and nothing tells, so it is tried again.
_EXHAUSTED_PAUSE_SECONDS = 0.1


class Server:
    """Answers connections with one handler until it is told to stop."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        """`tls` is a server's context; without it HTTP goes in the clear."""
        self.handler = handler
        self.limits = limits or Limits()
        self.access_log = access_log
        self.closing = False
        self._tls = tls
        rate = self.limits.bytes_per_second
        self._pace = None if rate is None else Pace(rate)
        self._connections: dict[_Connection, None] = {}
        self._arrival = trio.Event()

    def __repr__(self) -> str:
        return f"<Server {len(self._connections)} connections>"

    async def serve(
        self,
        listeners: Sequence[socket.socket],
        *,
        shutdown: trio.Event | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer on listening sockets, which are closed at the end.

        When `shutdown` is set no connection is accepted any more, idle ones are
        closed, and requests that run get `grace_seconds`. Cancelling ends at once.
        """
        async with trio.open_nursery() as background:
            background.start_soon(self._sweep)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        listener.setblocking(False)
                        if listener.family != socket.AF_UNIX:
                            # Inherited by what it accepts.
                            listener.setsockopt(
                                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
                            )
                        accepting.start_soon(self._accept, listener, connections)
                    task_status.started()
                    if shutdown is not None:
                        await shutdown.wait()
                        accepting.cancel_scope.cancel()
                self._finish(connections.cancel_scope)
            background.cancel_scope.cancel()

    def _finish(self, connections: trio.CancelScope) -> None:
        """Close what is idle, and give what runs its time."""
        self.closing = True
        for connection in self._connections:
            if connection.idle:
                connection.scope.cancel()
        connections.deadline = trio.current_time() + self.limits.grace_seconds

    async def _sweep(self) -> None:
        """Cancel the connections whose time is over.

        Moving a cancel scope's deadline costs a fifth of a small request, setting a
        number nothing; so time is looked at a few times a second.
        """
        pause = self.limits.sweep_seconds()
        while True:
            if not self._connections:
                self._arrival = trio.Event()
                await self._arrival.wait()
            await trio.sleep(pause)
            now = trio.current_time()
            for connection in self._connections:
                if connection.deadline < now:
                    connection.scope.cancel()

    async def _accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        with listener:
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    for _ in range(_ACCEPTS_AT_ONCE):
                        sock, address = listener.accept()
                        nursery.start_soon(self._run, sock, name_of(address))
                except BlockingIOError:
                    continue
                except OSError as error:
                    await self._accept_failed(error)

    async def _accept_failed(self, error: OSError) -> None:
        """Carry on after a connection was not accepted; only its client suffers."""
        if error.errno in _EXHAUSTED:
            _log.warning("no connection can be accepted: %s", error.strerror)
            self._evict_idle()
            await trio.sleep(_EXHAUSTED_PAUSE_SECONDS)
        else:
            _log.info("a client left before it was accepted: %s", error)

    def _evict_idle(self) -> bool:
        """Close the connection that is idle longest; tell if there was one."""
        for connection in self._connections:
            if connection.idle and not connection.scope.cancel_called:
                connection.scope.cancel()
                return True
        return False

    async def _run(self, sock: socket.socket, peer: str) -> None:
        sock.setblocking(False)
        link: Link
        link = TLSLink(sock, peer, self._tls) if self._tls else PlainLink(sock, peer)
        if self._pace is not None:
            link = PacedLink(link, self._pace)
        connection = _Connection(self, link)
        full = len(self._connections) >= self.limits.connections
        try:
            if full and not self._evict_idle():
                connection.farewell(503, "too_many_connections")
                return
            self._connections[connection] = None
            self._arrival.set()
            await connection.run()
        except (OSError, ClientGoneError, trio.BrokenResourceError) as error:
            _log.debug("%s: %s", peer, error)
        except Exception:  # noqa: BLE001 - logged; the other clients go on
            _log.exception("the connection of %s failed", peer)
        finally:
            self._connections.pop(connection, None)
            link.close()

    def became_idle(self, connection: _Connection) -> None:
        """Put a connection last among those that may be closed to make room."""
        del self._connections[connection]
        self._connections[connection] = None


class _Connection:
    """One client: its requests, one after the other."""

    def __init__(self, server: Server, link: Link) -> None:
        self.deadline = math.inf
        self.idle = False
        self.limits = server.limits
        self.link = link
        self.scope = trio.CancelScope()
        self._server = server
        self._buffer = b""
        self._memory = HeadMemory()

    async def run(self) -> None:
        """Answer until one side closes."""
        with self.scope:
            self.allow(self.limits.head_seconds)
            await self.link.start()
            while await self._exchange():
                pass
        if self.scope.cancelled_caught and not self.idle:
            self.farewell(408, "timeout_on_waiting")

    def farewell(self, status: int, code: str) -> None:
        """Send a last word if that needs no waiting."""
        response = error_response(RefusedError(status, code, "Try again later."))
        answer = Answer(self.link, Request("GET", "/"), response, last=True)
        self.link.send_now(answer.whole())

    def allow(self, seconds: float) -> None:
        """Give what comes next that long."""
        self.deadline = trio.current_time() + seconds

    async def _exchange(self) -> bool:
        """Answer one request; tell whether another may follow."""
        try:
            request = await self._next_request()
        except RefusedError as error:
            request = Request("-", "-", peer=self.link.peer, began=trio.current_time())
            await self._send(request, error_response(error), last=True)
            await self._linger()
            return False
        if request is None:
            return False
        self.deadline = math.inf
        response = await self._answer(request)
        body = request.body
        keep = not self._server.closing
        if isinstance(body, IncomingBody):
            keep = await body.skip_rest() and keep
        await self._send(request, response, last=not keep)
        if isinstance(body, IncomingBody):
            self._buffer = body.left_over()
            if not body.complete:
                await self._linger()
        return keep

    # -- reading ---------------------------------------------------------------

    async def _next_request(self) -> Request | None:
        """Return the next request; None when the client has closed."""
        if not self._buffer:
            self.idle = True
            self._server.became_idle(self)
            self.allow(self.limits.idle_seconds)
            self._buffer = await self.link.receive()
            self.idle = False
            if not self._buffer:
                return None
        else:
            await trio.lowlevel.checkpoint()
        known = self._memory.recall(self._buffer)
        if known is None:
            return await self._judge()
        rest = self._buffer[known.size :]
        if known.method == "POST":
            self._buffer = b""
            framing = CountedFraming(rest, known.length)
            body = IncomingBody(self, framing, known.length, persistent=True)
            return self._request(known.method, known.target, known.headers, body)
        self._buffer = rest
        return self._request(known.method, known.target, known.headers, NoBody())

    async def _judge(self) -> Request | None:
        """Let h11 read the head of a request."""
        self.allow(self.limits.head_seconds)
        judge = h11.Connection(
            h11.SERVER, max_incomplete_event_size=self.limits.head_bytes
        )
        raw, self._buffer = self._buffer, b""
        judge.receive_data(raw)
        try:
            while (event := judge.next_event()) is h11.NEED_DATA:
                data = await self.link.receive()
                raw += data
                judge.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise _refusal(error) from None
        if not isinstance(event, h11.Request):
            return None
        head = raw[: len(raw) - len(judge.trailing_data[0])]
        if len(head) > self.limits.head_bytes:
            # h11 only bounds a head that comes in several pieces.
            raise RefusedError(431, "bad_request", "The request's head is too long.")
        if event.http_version not in (b"1.1", b"1.0"):
            raise RefusedError(505, "bad_request", "HTTP/1.1 is spoken here.")
        headers = _headers(event)
        body = self._judged_body(judge, headers, event.http_version)
        if body.persistent:
            self._memory.remember(head, headers)
        request = self._request(
            event.method.decode("ascii"), event.target.decode("latin-1"), headers, body
        )
        request.version = event.http_version.decode("ascii")
        return request

    def _judged_body(
        self, judge: h11.Connection, headers: Mapping[str, str], version: bytes
    ) -> IncomingBody:
        length: int | None = int(headers.get("content-length", 0))
        if "transfer-encoding" in headers:
            if "content-length" in headers:
                raise RefusedError(400, "bad_request", "Two lengths for one body.")
            length = None
        tokens = headers.get("connection", "").lower().replace(" ", "").split(",")
        return IncomingBody(
            self,
            _JudgedFraming(judge, complete=length == 0),
            length,
            persistent=version == b"1.1" and "close" not in tokens,
            expects=judge.they_are_waiting_for_100_continue,
        )

    async def receive(self) -> bytes:
        """Return what has come, after waiting for it; b"" at the end."""
        return await self.link.receive()

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self.link.send(data)

    def _request(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> Request:
        path, query = split_target(target)
        return Request(
            method,
            path,
            query,
            headers,
            body,
            self.link.peer,
            began=trio.current_time(),
        )

    # -- answering -------------------------------------------------------------

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._server.handler(request)
        except RefusedError as error:
            return error_response(error)
        except ClientGoneError:
            raise
        except Exception:  # noqa: BLE001 - logged; only this request fails
            error_id = str(uuid.uuid4())
            _log.exception("%s %s: %s", request.method, request.path, error_id)
            fault = RefusedError(500, "internal_server_error", "The server failed.")
            return error_response(fault, error_id=error_id)

    async def _send(self, request: Request, response: Response, *, last: bool) -> None:
        answer = Answer(self.link, request, response, last=last)
        try:
            await answer.send(self._wait_for_client)
        finally:
            if self._server.access_log is not None:
                self._server.access_log(record(request, response, answer.sent_bytes))

    def _wait_for_client(self, begins: bool) -> None:  # noqa: FBT001 - a callback
        self.allow(self.limits.stall_seconds if begins else math.inf)

    async def _linger(self) -> None:
        """Let a client that still sends read the answer before the socket closes.

        Closing with bytes unread would reset the connection and take the answer
        with it.
        """
        self.allow(self.limits.linger_seconds)
        self.idle = True
        await self.link.send_end()
        while await self.link.receive():
            pass


class _JudgedFraming:
    """A body that h11 takes out of what the client sends."""

    def __init__(self, judge: h11.Connection, *, complete: bool) -> None:
        self.complete = complete
        self._judge = judge

    def take(self) -> bytes:
        """Return the body's next bytes, b"" if more must come; RefusedError."""
        try:
            event = self._judge.next_event()
        except h11.RemoteProtocolError as error:
            raise _refusal(error) from None
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self.complete = event is not h11.NEED_DATA
        return b""

    def feed(self, data: bytes) -> None:
        """Take in what has come; b"" says that nothing more will."""
        self._judge.receive_data(data)

    def left_over(self) -> bytes:
        """Return what came behind the body."""
        return self._judge.trailing_data[0]


def _headers(request: h11.Request) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _refusal(error: h11.RemoteProtocolError) -> RefusedError:
    """Return how to answer what h11 did not accept."""
    return RefusedError(error.error_status_hint, "bad_request", str(error))
