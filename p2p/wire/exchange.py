"""The life of one request, as tables, and what an answer must agree with.

Theory of operation: both ends keep the same state of each request, driven by the
same signals: the asker's CANCEL and the answers. A fetch ends with its last byte of
bulk or with an answer without bulk. A watch goes on after its map until it is
cancelled or the giver ends it. After CANCEL everything that was legal before stays
legal until the terminal answer, because the two cross on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from p2p.wire import bitmap
from p2p.wire import messages as m
from p2p.wire.bulk import (
    BatchHead,
    CommitDataHead,
    Head,
    MapHead,
    UnitHead,
    join,
)
from p2p.wire.hashes import unit_count
from p2p.wire.rule import RuleError


class Phase(Enum):
    """How far a request is."""

    WAITING = "waiting"
    """No answer yet."""
    FLOWING = "flowing"
    """The head is there, bulk is on its way."""
    WATCHING = "watching"
    """The map is complete; updates follow."""
    CANCELLING = "cancelling"
    """Cancelled before any answer."""
    DRAINING = "draining"
    """Cancelled while bulk is on its way."""
    ENDING = "ending"
    """A watch cancelled after its map."""
    DONE = "done"


class Signal(Enum):
    """What moves a request on."""

    CANCEL = "CANCEL"
    HEAD = "head"
    """A head that bulk follows."""
    WHOLE = "head without bulk"
    SLICE = "slice"
    LAST = "last slice"
    UPDATE = "HAVE, UNITS"
    STATUS = "STATUS"
    FINAL = "plain answer"
    CANCELLED = "CANCELLED"


Table = Mapping[Phase, Mapping[Signal, Phase]]

FETCH: Final[Table] = {
    Phase.WAITING: {
        Signal.HEAD: Phase.FLOWING,
        Signal.WHOLE: Phase.DONE,
        Signal.FINAL: Phase.DONE,
        Signal.STATUS: Phase.WAITING,
        Signal.CANCEL: Phase.CANCELLING,
    },
    Phase.FLOWING: {
        Signal.SLICE: Phase.FLOWING,
        Signal.LAST: Phase.DONE,
        Signal.STATUS: Phase.FLOWING,
        Signal.CANCEL: Phase.DRAINING,
    },
    Phase.CANCELLING: {
        Signal.HEAD: Phase.DRAINING,
        Signal.WHOLE: Phase.DONE,
        Signal.FINAL: Phase.DONE,
        Signal.STATUS: Phase.CANCELLING,
        Signal.CANCELLED: Phase.DONE,
    },
    Phase.DRAINING: {
        Signal.SLICE: Phase.DRAINING,
        Signal.LAST: Phase.DONE,
        Signal.STATUS: Phase.DRAINING,
        Signal.CANCELLED: Phase.DONE,
    },
}

WATCH: Final[Table] = {
    Phase.WAITING: {
        Signal.HEAD: Phase.FLOWING,
        Signal.WHOLE: Phase.WATCHING,
        Signal.FINAL: Phase.DONE,
        Signal.STATUS: Phase.WAITING,
        Signal.CANCEL: Phase.CANCELLING,
    },
    Phase.FLOWING: {
        Signal.SLICE: Phase.FLOWING,
        Signal.LAST: Phase.WATCHING,
        Signal.UPDATE: Phase.FLOWING,
        Signal.STATUS: Phase.FLOWING,
        Signal.FINAL: Phase.DONE,
        Signal.CANCEL: Phase.DRAINING,
    },
    Phase.WATCHING: {
        Signal.UPDATE: Phase.WATCHING,
        Signal.FINAL: Phase.DONE,
        Signal.CANCEL: Phase.ENDING,
    },
    Phase.CANCELLING: {
        Signal.HEAD: Phase.DRAINING,
        Signal.WHOLE: Phase.ENDING,
        Signal.FINAL: Phase.DONE,
        Signal.STATUS: Phase.CANCELLING,
        Signal.CANCELLED: Phase.DONE,
    },
    Phase.DRAINING: {
        Signal.SLICE: Phase.DRAINING,
        Signal.LAST: Phase.ENDING,
        Signal.UPDATE: Phase.DRAINING,
        Signal.STATUS: Phase.DRAINING,
        Signal.FINAL: Phase.DONE,
        Signal.CANCELLED: Phase.DONE,
    },
    Phase.ENDING: {
        Signal.UPDATE: Phase.ENDING,
        Signal.FINAL: Phase.DONE,
        Signal.CANCELLED: Phase.DONE,
    },
}


class Exchange:
    """One open request, and what of its answer has passed, at either end."""

    __slots__ = ("_data", "_head", "_left", "_total", "phase", "request")

    def __init__(self, request: m.Request) -> None:
        self.request = request
        self.phase = Phase.WAITING
        self._head: Head | None = None
        self._left = self._total = 0
        self._data = bytearray()

    @property
    def is_cancelled(self) -> bool:
        """Tell whether CANCEL was sent."""
        return self.phase in {Phase.CANCELLING, Phase.DRAINING, Phase.ENDING}

    @property
    def bulk_bytes(self) -> tuple[int, int]:
        """How much bulk has passed, and how much the head announced."""
        return self._total - self._left, self._total

    def move(self, signal: Signal) -> None:
        """Go where the table says; RuleError if it has no such signal now."""
        table = WATCH if isinstance(self.request, m.Watch) else FETCH
        phase = table[self.phase].get(signal)
        if phase is None:
            raise RuleError(f"{signal.value} for a request that is {self.phase.value}")
        self.phase = phase

    def begin(self, head: Head) -> None:
        """Take a head that agrees with the request."""
        check_answer(self.request, head)
        total = head.bulk_bytes
        self.move(Signal.HEAD if total else Signal.WHOLE)
        self._head = head
        self._left = self._total = total

    def pass_bulk(self, size: int) -> None:
        """Count bytes of bulk; RuleError if so many were not announced."""
        if size > self._left:
            raise RuleError(f"{size} bytes of bulk where {self._left} are due")
        self._left -= size
        self.move(Signal.SLICE if self._left else Signal.LAST)

    def receive_bulk(self, data: memoryview) -> m.BulkAnswer | None:
        """Take bytes of bulk; return the answer when it is complete."""
        self.pass_bulk(len(data))
        self._data += data
        return None if self._left else self.answer()

    def answer(self) -> m.BulkAnswer:
        """Return the answer, all of whose bulk is here."""
        if self._head is None or self._left:
            raise RuleError("an answer that is not complete")
        answer = join(self._head, self._data)
        self._data = bytearray()
        check_map(self.request, answer)
        return answer


# -- what an answer must agree with ------------------------------------------------


def check_answer(request: m.Request, answer: Head | m.PlainAnswer) -> None:
    """Raise RuleError unless this may answer that request, as far as a head shows."""
    if isinstance(answer, m.NotHave | m.Rejected | m.Cancelled | m.Busy):
        fits = True
    elif isinstance(answer, m.Elsewhere):
        fits = isinstance(request, m.Want | m.GetUnit)
    else:
        fits = _fits(request, answer)
    if not fits:
        kind = type(answer).__name__
        raise RuleError(f"{kind} does not fit the {type(request).__name__} it answers")


def _fits(request: m.Request, answer: Head | m.Sizes | m.Hashes) -> bool:
    match request, answer:
        case m.GetHead(), CommitDataHead():
            return True
        case m.GetCommit(commit=commit), CommitDataHead(checksum=checksum):
            return checksum == commit
        case m.Ask(prefixes=prefixes), m.Sizes(sizes=sizes):
            return len(sizes) == len(prefixes)
        case m.Want(max_bytes=most, names=names), BatchHead(lengths=lengths):
            fits = answer.content_bytes <= most and _saves(answer)
            return fits and len(lengths) == len(names)
        case m.GetUnit(length=asked), UnitHead(length=length):
            return length <= asked and _saves(answer)
        case m.GetHashes(), m.Hashes():
            return _is_page(request, answer)
        case m.Watch(objects=objects), MapHead(bitmap_bytes=size):
            return size in {0, bitmap.size(objects)}
    return False


def _saves(head: BatchHead | UnitHead) -> bool:
    """Tell whether a frame, if there is one, is shorter than what is in it."""
    return not head.frame_bytes or head.frame_bytes < head.content_bytes


def _is_page(request: m.GetHashes, page: m.Hashes) -> bool:
    count = len(page.hashes) // 32
    return (
        page.first == request.first
        and count <= request.count
        and page.first + count <= unit_count(page.size)
    )


def check_update(request: m.Request, update: m.Update) -> None:
    """Raise RuleError unless the update is about the commit that is watched."""
    if isinstance(update, m.Have):
        last = update.indices[-1]
    else:
        last = max([number for number, _ in update.objects])
    if not isinstance(request, m.Watch) or last >= request.objects:
        raise RuleError(f"{type(update).__name__} of object {last} past the closure")


def check_map(request: m.Request, answer: m.BulkAnswer) -> None:
    """Raise RuleError if a map has bits behind the closure's last object."""
    if isinstance(request, m.Watch) and isinstance(answer, m.Map) and answer.bitmap:
        bitmap.check(answer.bitmap, request.objects)
