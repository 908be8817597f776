"""Fetches over HTTP for trio: one thread with libcurl for all transfers of a process.

Transfers only move bytes. Whoever decides what is fetched owns an `Inbox`, starts
transfers on it and takes their events in batches; `Fetcher.fetch` does all of that for
a single request.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio

from p2p.web.client.engine import Engine, Limits
from p2p.web.client.intake import Codec
from p2p.web.client.lane import Chunk, Done, Event, Failed, Lane
from p2p.web.client.request import Request, Response
from p2p.web.client.transfer import Transfer, new_transfer

WINDOW_BYTES = 4 << 20
"""Bytes an inbox may hold that its owner has not reported as consumed."""
_CLOSE_SECONDS = 1.0
DEFAULT_LIMITS = Limits()


class Inbox:
    """One consumer's transfers; used by one task at a time.

    While more than the window is not reported as consumed, its running transfers are
    paused and no other is started, so memory is bounded whatever servers send.
    """

    def __init__(self, fetcher: Fetcher, *, window_bytes: int) -> None:
        """Use `Fetcher.inbox` to get one."""
        self._fetcher = fetcher
        self._events: list[Event] = []
        self._arrived: trio.Event | None = None
        self._nudged = False
        self._lane = Lane(limit=window_bytes, engine=fetcher.engine, post=self._post)

    def start(
        self,
        request: Request,
        *,
        url: str | None = None,
        codec: Codec | None = None,
        resume: Transfer | None = None,
        tag: object = None,
    ) -> Transfer:
        """Queue a request; its events end with one Done or Failed.

        Args:
            request: what to ask.
            url: what to ask for instead of the request's own URL, where thousands
                of requests differ in nothing else.
            codec: how a successful answer's body is decoded.
            resume: a failed transfer of this inbox whose file this request gets the
                rest of: the answer must begin where that one ended.
            tag: found again in the transfer that events carry.

        Raises:
            ConfigError: the URL or a header cannot be sent.

        """
        self._fetcher.check_open()
        transfer = new_transfer(
            request, self._lane, url=url, codec=codec, resume=resume, tag=tag
        )
        engine = self._fetcher.engine
        engine.call(lambda: engine.start(transfer))
        return transfer

    def cancel(self, transfer: Transfer) -> None:
        """Drop a transfer; no event of it comes any more."""
        if transfer.cancelled:
            return
        transfer.cancelled = True
        kept = [event for event in self._events if event.transfer is not transfer]
        for event in self._events:
            if event.transfer is transfer:
                self.consumed(_size(event))
        self._events = kept
        if not self._fetcher.closed:
            engine = self._fetcher.engine
            engine.call(lambda: engine.cancel(transfer))

    def consumed(self, size: int) -> None:
        """Report that `size` bytes out of events are dealt with."""
        lane = self._lane
        lane.consumed += size
        if lane.blocked and lane.drained and not self._fetcher.closed:
            self._fetcher.engine.call(self._fetcher.engine.look)

    async def next_events(self) -> list[Event]:
        """Return what has happened; wait if nothing has and nobody nudges.

        Cancelled while it waits, it loses nothing.
        """
        if self._events or self._nudged:
            await trio.lowlevel.checkpoint()
        while not self._events and not self._nudged:
            self._fetcher.check_open()
            self._arrived = trio.Event()
            await self._fetcher.wait(self._arrived)
        self._nudged = False
        events, self._events = self._events, []
        return events

    def nudge(self) -> None:
        """Have `next_events` return soon, perhaps with nothing."""
        self._nudged = True
        if self._arrived is not None:
            self._arrived.set()

    def _post(self, event: Event) -> None:
        if event.transfer.cancelled:
            self.consumed(_size(event))
            return
        self._events.append(event)
        if self._arrived is not None:
            self._arrived.set()


def _size(event: Event) -> int:
    match event:
        case Chunk(_, data):
            return len(data)
        case Done(_, response):
            return len(response.body)
        case Failed():
            return 0


class Fetcher:
    """All HTTP transfers of a process: `async with Fetcher() as fetcher`.

    Leaving the block drops what still runs, closes all connections and joins the
    thread; only where libcurl waits for a name server that does not answer the thread
    is left to end by itself. A fault of the thread is raised from whatever waits for
    events.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.closed = True
        self._limits = limits
        self._crash: BaseException | None = None
        self._waiting: set[trio.Event] = set()
        self._notified = False

    async def __aenter__(self) -> Self:
        self._token = trio.lowlevel.current_trio_token()
        self._stopped = trio.Event()
        self._finished = trio.Event()
        self.engine = Engine(self._limits, self._notify)
        # A daemon, so that no accident in here can keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)
        self.closed = False
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closed = True
        self.engine.call(self.engine.stop)
        self._wake_all()
        with trio.CancelScope(shield=True):
            await self._stopped.wait()
            with trio.move_on_after(_CLOSE_SECONDS):
                await self._finished.wait()
                self._thread.join()

    def inbox(self, *, window_bytes: int = WINDOW_BYTES) -> Inbox:
        """Return a place for transfers and their events."""
        self.check_open()
        return Inbox(self, window_bytes=window_bytes)

    async def fetch(self, request: Request) -> Response:
        """Return the whole answer to one request, whatever its status.

        Raises:
            LimitError: the body is longer than `request.max_bytes`.
            TransportError: there was no answer, or not all of it.
            OriginError: what answered does not speak HTTP, or redirects in a circle.

        """
        inbox = self.inbox(window_bytes=max(request.max_bytes, 1) + WINDOW_BYTES)
        transfer = inbox.start(request)
        parts: list[bytes] = []
        while True:
            try:
                events = await inbox.next_events()
            except trio.Cancelled:
                inbox.cancel(transfer)
                raise
            for event in events:
                match event:
                    case Chunk(_, data):
                        parts.append(data)
                    case Done(_, response):
                        body = b"".join([*parts, response.body])
                        return response._replace(body=body)
                    case Failed(_, error):
                        raise error

    def limit(self, rate: float | None, dscp: int | None = None) -> None:
        """Keep all transfers together below a rate, from now on, and mark packets.

        Args:
            rate: bytes a second that come, headers of the network included; None: any.
            dscp: priority of what is sent; None: none.

        """
        self.check_open()
        self.engine.call(lambda: self.engine.limit(rate, dscp))

    # -- for inboxes ------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise trio.ClosedResourceError when closed, or what ended the thread."""
        if self._crash is not None:
            raise self._crash
        if self.closed:
            raise trio.ClosedResourceError

    async def wait(self, event: trio.Event) -> None:
        """Wait for an event that is also set when nothing can come any more."""
        self._waiting.add(event)
        try:
            await event.wait()
        finally:
            self._waiting.discard(event)

    # -- the thread -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.engine.run()
        except BaseException as error:  # noqa: BLE001 - raised again in trio's thread
            self._crash = error
        self._tell(self._on_stopped)
        self.engine.close()
        self._tell(self._on_finished)

    def _tell(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # nobody is left to be told
            self._token.run_sync_soon(call)

    def _on_stopped(self) -> None:
        self._stopped.set()
        self._wake_all()

    def _on_finished(self) -> None:
        self.engine.close_wake()
        self._finished.set()

    def _wake_all(self) -> None:
        for event in self._waiting:
            event.set()

    def _notify(self) -> None:
        if not self._notified:
            self._notified = True
            self._token.run_sync_soon(self._hand_over)

    def _hand_over(self) -> None:
        # First, so that what is added from now on is announced anew.
        self._notified = False
        outbox = self.engine.outbox
        while outbox:
            for lane, event in outbox.popleft():
                lane.post(event)
