"""Fetches many objects of an origin at once, each checked, retried and in order.

Theory of operation. A wanted object waits in a queue, is transferred, and ends in
ObjectReceived, in an ObjectPiece marked last, or in ObjectFailed. What fails goes to
the next mirror at once, or back to the queue after a pause. Pieces of an object come
in order; after an ObjectRestarted they begin anew. The last piece, and ObjectReceived,
come only after the checksum was found right.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import NamedTuple

import trio

from p2p.errors import CredentialsError, Error, TransportError
from p2p.ostree.messages import Form
from p2p.ostree.objects import (
    CONTENT_ADDRESSED_METADATA,
    MAX_HEADER_BYTES,
    MAX_METADATA_BYTES,
    ObjectName,
    ObjectType,
)
from p2p.web.client.decode import ObjectCodec
from p2p.web.client.failure import ResumeRefusedError
from p2p.web.client.lane import Chunk, Done, Event, Failed
from p2p.web.client.mirrors import Mirror
from p2p.web.client.request import Headers, Request
from p2p.web.client.retry import Course
from p2p.web.client.source import Source
from p2p.web.client.transfer import Transfer

DEPTH = 64
"""Objects asked of the fetching thread at once, so that it never waits for us."""
RESUME_BYTES = 1 << 20
"""Files of which less has come are fetched from their start again."""


class ObjectReceived(NamedTuple):
    """A whole object, verified; at most PIECE_BYTES."""

    name: ObjectName
    data: bytes


class ObjectPiece(NamedTuple):
    """The next bytes of a longer object.

    `size` is the whole object's length in this form as its header claims it, None
    where nothing tells it. The object is verified when the piece marked `last` comes.
    """

    name: ObjectName
    offset: int
    data: bytes
    last: bool
    size: int | None


class ObjectRestarted(NamedTuple):
    """What came of an object is void: its pieces begin again at offset 0."""

    name: ObjectName


class ObjectFailed(NamedTuple):
    """The origin does not have the object, or nothing usable of it."""

    name: ObjectName
    error: Error


class OriginPaused(NamedTuple):
    """The origin wants to be left alone for so many seconds; we do as it says."""

    seconds: float


ObjectEvent = ObjectReceived | ObjectPiece | ObjectRestarted | ObjectFailed
OriginEvent = ObjectEvent | OriginPaused


class _Want:
    """An object on its way; `given` counts its bytes handed to the consumer."""

    __slots__ = (
        "codec",
        "course",
        "form",
        "given",
        "mirror",
        "name",
        "renewed",
        "resume",
        "transfer",
    )

    def __init__(self, name: ObjectName, form: Form) -> None:
        self.name = name
        self.form = form
        self.course: Course | None = None  # made when something fails
        self.mirror: Mirror | None = None
        self.codec: ObjectCodec | None = None
        self.transfer: Transfer | None = None
        self.resume: Transfer | None = None
        self.given = 0
        self.renewed = False


class Bulk:
    """The objects wanted of one origin; used by one task at a time, but for `want`."""

    def __init__(
        self, source: Source, *, max_object_bytes: int, window_bytes: int
    ) -> None:
        self._source = source
        self._mirrors = source.content
        self._inbox = source.fetcher.inbox(window_bytes=window_bytes)
        self._limit = max_object_bytes
        # A stored block of deflate is 5 bytes longer than its content of up to 64 KiB.
        self._max_file_bytes = (
            max_object_bytes + max_object_bytes // 1000 + MAX_HEADER_BYTES
        )
        self._wants: dict[ObjectName, _Want] = {}
        self._queue: deque[_Want] = deque()
        self._later: list[tuple[float, int, _Want]] = []
        self._order = itertools.count()
        self._asked: set[_Want] = set()
        self._silent = 0
        self._hold_until = 0.0
        self._out: list[OriginEvent] = []
        self._template_key: tuple[Mirror, Headers, int] | None = None
        self._request: Request

    def want(self, name: ObjectName, *, form: Form = Form.CANONICAL) -> None:
        """Fetch an object; what becomes of it comes out of `next_events`.

        Raises ValueError for one that is wanted already, or has no checksum.
        """
        if name in self._wants:
            raise ValueError(f"{name} is wanted already")
        if name.type is not ObjectType.FILE and (
            name.type not in CONTENT_ADDRESSED_METADATA
        ):
            raise ValueError(f"{name} cannot be verified by its name")
        want = _Want(name, form)
        self._wants[name] = want
        self._queue.append(want)
        if len(self._asked) < DEPTH:
            self._inbox.nudge()

    def forget(self, name: ObjectName) -> bool:
        """Stop fetching an object; no event of it comes any more.

        False if it is over already: all its events came.
        """
        want = self._wants.pop(name, None)
        if want is None:
            return False
        if want.transfer is not None:
            self._inbox.cancel(want.transfer)
            self._end(want, want.transfer)
        kept: list[OriginEvent] = []
        for event in self._out:
            if isinstance(event, OriginPaused) or event.name != name:
                kept.append(event)
            elif isinstance(event, ObjectReceived | ObjectPiece):
                self.consumed(len(event.data))
        self._out = kept
        return True

    @property
    def wanted(self) -> int:
        """How many objects are on their way."""
        return len(self._wants)

    def consumed(self, size: int) -> None:
        """Report that `size` bytes out of events are dealt with: more may come."""
        self._inbox.consumed(size)

    async def next_events(self) -> list[OriginEvent]:
        """Return what has happened; wait if nothing has.

        Raises:
            CredentialsError: the origin's token server does not accept us.
            ConfigError: the list of mirrors is wrong.
            OriginError, TransportError: no mirror works, or no token can be had.

        """
        await self._mirrors.open()
        while not self._out:
            headers = self._source.authorization.current()
            if headers is None:
                headers = await self._source.authorization.renew()
            self._start_due(headers)
            with trio.move_on_at(self._next_start()):
                for event in await self._inbox.next_events():
                    # One that failed may have had the others dropped.
                    if not event.transfer.cancelled:
                        self._handle(event)
        out, self._out = self._out, []
        return out

    # -- starting -----------------------------------------------------------------

    def _next_start(self) -> float:
        """Return when something can be started that could not before."""
        if len(self._asked) >= DEPTH:
            return float("inf")
        if self._queue:
            return self._hold_until
        return max(self._hold_until, self._later[0][0]) if self._later else float("inf")

    def _start_due(self, authorization: Headers) -> None:
        now = trio.current_time()
        while self._later and self._later[0][0] <= now:
            self._queue.appendleft(heapq.heappop(self._later)[2])
        if now < self._hold_until:
            return
        while self._queue and len(self._asked) < DEPTH:
            want = self._queue.popleft()
            # What was forgotten stays in the queue until its turn comes.
            if self._wants.get(want.name) is want:
                self._start(want, authorization)

    def _start(self, want: _Want, authorization: Headers) -> None:
        mirror = want.course.mirror if want.course else self._first_mirror()
        want.mirror = mirror
        max_bytes = self._max_bytes(want.name)
        request = self._template(mirror, authorization, max_bytes)
        resume, want.resume = want.resume, None
        if resume is not None and resume.last_modified is not None:
            date = formatdate(resume.last_modified, usegmt=True)
            request = replace(request, headers=(("If-Range", date),))
        else:
            want.codec = ObjectCodec(want.name, want.form, limit=self._limit)
        want.transfer = self._inbox.start(
            request,
            url=f"{mirror.url}/{_path(want.name)}",
            codec=want.codec,
            resume=resume,
            tag=want,
        )
        self._asked.add(want)
        self._source.counters.requests += 1

    def _template(
        self, mirror: Mirror, authorization: Headers, max_bytes: int
    ) -> Request:
        """Return the request for any object at a mirror, made anew if need be."""
        key = (mirror, authorization, max_bytes)
        if key != self._template_key:
            self._template_key = key
            self._request = self._source.request(
                mirror, "", authorization=authorization, max_bytes=max_bytes
            )
        return self._request

    def _first_mirror(self) -> Mirror:
        return self._mirrors.order(trio.current_time())[0]

    def _max_bytes(self, name: ObjectName) -> int:
        if name.type is ObjectType.FILE:
            return self._max_file_bytes
        return MAX_METADATA_BYTES

    # -- what comes -----------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        want = event.transfer.tag
        if not isinstance(want, _Want):
            raise TypeError("a transfer of somebody else's")
        match event:
            case Chunk(transfer, data):
                self._silent = 0
                self._give(want, transfer, data, last=False)
            case Done(transfer, response):
                self._silent = 0
                self._end(want, transfer)
                if response.ok:
                    del self._wants[want.name]
                    self._give(want, transfer, response.body, last=True)
                else:
                    self._inbox.consumed(len(response.body))
                    self._fail(want, transfer, response.error(), response.retry_after)
            case Failed(transfer, error):
                self._end(want, transfer)
                if not isinstance(error, Error):
                    raise error
                self._fail(want, transfer, error, None)

    def _end(self, want: _Want, transfer: Transfer) -> None:
        self._asked.discard(want)
        want.transfer = None
        kind = want.name.type.extension
        self._source.counters.bytes[kind] += transfer.received

    def _give(
        self, want: _Want, transfer: Transfer, data: bytes, *, last: bool
    ) -> None:
        if last and not want.given:
            self._out.append(ObjectReceived(want.name, data))
            return
        size = want.codec.size if want.codec is not None else None
        if size is None and transfer.length is not None:
            size = transfer.offset + transfer.length
        self._out.append(ObjectPiece(want.name, want.given, data, last, size))
        want.given += len(data)

    # -- what fails -----------------------------------------------------------------

    def _fail(
        self,
        want: _Want,
        transfer: Transfer,
        error: Error,
        retry_after: float | None,
    ) -> None:
        mirror = want.mirror
        if mirror is None:
            raise AssertionError("an object failed that was not asked for")
        if isinstance(error, ResumeRefusedError) or self._renews(
            want, mirror, transfer, error
        ):
            self._again(want)
            return
        self._source.note_failure(mirror, _path(want.name), error)
        if want.course is None:
            want.course = self._source.course(self._mirrors, first=mirror)
        course = want.course
        if course.next_mirror(error):
            self._again(want)
            return
        if isinstance(error, TransportError) and not transfer.status:
            course.begin()
            self._again(want)
            self._note_silence(error)
            return
        resumable = _is_resumable(transfer, error)
        if resumable and transfer.received >= RESUME_BYTES:
            course.tried = 0  # the link is bad, but the file gets through
        delay = course.next_try(retry_after)
        if delay is None:
            del self._wants[want.name]
            self._out.append(ObjectFailed(want.name, course.final_error()))
            return
        if retry_after is not None and self._mirrors.single:
            self._hold(delay)
            self._out.append(OriginPaused(delay))
            self._withdraw(lambda waiting: waiting.handle is None)
        keep = resumable and course.mirror is mirror
        self._again(want, delay=delay, resume=transfer if keep else None)

    def _renews(
        self, want: _Want, mirror: Mirror, transfer: Transfer, error: Error
    ) -> bool:
        """Tell whether the object is to be asked for once more with a new token."""
        if not isinstance(error, CredentialsError) or error.status != 401:
            return False
        if want.renewed or not mirror.credentials:
            return False
        want.renewed = True
        sent = transfer.request.private[len(mirror.private) :]
        return self._source.authorization.refused(sent)

    def _again(
        self, want: _Want, *, delay: float = 0, resume: Transfer | None = None
    ) -> None:
        self._source.counters.retries += 1
        want.resume = resume
        if resume is None and want.given:
            want.given = 0
            self._out.append(ObjectRestarted(want.name))
        if delay:
            due = trio.current_time() + delay
            heapq.heappush(self._later, (due, next(self._order), want))
        else:
            self._queue.appendleft(want)

    def _note_silence(self, error: Error) -> None:
        """Hold everything back because no server answers at all.

        That is no object's fault, so it is counted for all of them together; what was
        asked meanwhile and not answered is asked again later.
        """
        self._silent += 1
        self._withdraw(lambda _: True)
        retry = self._source.retry
        if self._silent < retry.tries:
            self._hold(retry.delay(self._silent))
            return
        error.args = (f"{error} (tried {self._silent} times)",)
        self._silent = 0
        for name in list(self._wants):
            self.forget(name)
            self._out.append(ObjectFailed(name, error))

    def _hold(self, delay: float) -> None:
        """Start nothing for so many seconds."""
        self._hold_until = max(self._hold_until, trio.current_time() + delay)

    def _withdraw(self, which: Callable[[Transfer], bool]) -> None:
        """Put back into the queue what was asked and not answered yet."""
        for want in list(self._asked):
            transfer = want.transfer
            if transfer is not None and not transfer.status and which(transfer):
                self._inbox.cancel(transfer)
                self._end(want, transfer)
                self._queue.appendleft(want)


def _path(name: ObjectName) -> str:
    """Return where an archive repository has an object."""
    return f"objects/{name.path(archive=True)}"


def _is_resumable(transfer: Transfer, error: Error) -> bool:
    """Tell whether the rest of a file can be asked for instead of the whole.

    Last-Modified suffices as a validator: an object's file changes only when it is
    compressed anew, and then its checksum shows it.
    """
    return (
        isinstance(error, TransportError)
        and transfer.intake is not None
        and transfer.intake.received >= RESUME_BYTES
        and transfer.last_modified is not None
        and not transfer.redirected
    )
