"""How long messages are, as `p2p.wire` would write them, computed without writing.

What is not known here is guessed: in a HAVE an index takes two bytes, and each commit
is shared as one ref.
"""

from __future__ import annotations

from p2p.sim.giver import Answer
from p2p.sim.link import SLICE_HEAD_BYTES
from p2p.sim.origin import Abort, Get, Got, Pace
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.wire.layout import encode
from p2p.wire.limits import UNIT_BYTES
from p2p.wire.messages import Digest, Record

_FRAME_BYTES = 4
# Head of a GET and of its answer.
_GET_BYTES = 200
_GOT_BYTES = 250
_CHECKSUM_BYTES = 34
_NAME_BYTES = 33
_PREFIX_BYTES = 9
_SIZE_BYTES = 8
_REF_BYTES = 20
_SIGNED_BYTES = 34 + 66


def frame_bytes(message: object) -> int | None:
    """Return the length of a message's control frames; None if it is not known.

    For an answer with content it is that of its head.
    """
    match message:
        case Answer():
            return _answer_bytes(message)
        case e.HaveChanged():
            return _have_bytes(message)
        case e.StatusReported(queued_bytes=queued, rate=rate):
            return _frame(_integer(queued), _integer(int(rate)), 3)
        case e.HoldingsChanged(commits=commits):
            rows = [_CHECKSUM_BYTES + 2 for _ in commits]
            refs = [_CHECKSUM_BYTES + _REF_BYTES + 3 for _ in commits]
            return _frame(1, *rows, 1, *refs, 1)
        case Record(epoch=epoch, seq=seq, body=body, age=age):
            version = _integer(epoch) + _integer(seq)
            return _frame(_CHECKSUM_BYTES, version, _blob(len(body)), _integer(age))
        case Digest():
            return _FRAME_BYTES + len(encode(message))
        case Get() | Abort():
            return _GET_BYTES
        case Pace():
            return 0
        case Got():
            return _GOT_BYTES
        case _:
            return _request_bytes(message)


def _request_bytes(message: object) -> int | None:
    match message:
        case a.Ask(_, request, names):
            return _frame(_integer(request), _blob(_PREFIX_BYTES * len(names)))
        case a.RequestBatch(_, request, names, most):
            names_ = _blob(_NAME_BYTES * len(names))
            return _frame(_integer(request), _integer(most), names_)
        case a.RequestUnit(_, request, _, unit):
            offset = _integer(unit * UNIT_BYTES)
            length = _integer(UNIT_BYTES)
            return _frame(_integer(request), _blob(_NAME_BYTES), offset, length)
        case a.RequestHashes(_, request, _, first, count):
            counts = _integer(first) + _integer(count)
            return _frame(_integer(request), _blob(_NAME_BYTES), counts)
        case a.Watch(_, request, _):
            return _frame(_integer(request), _CHECKSUM_BYTES, 3)
        case a.Cancel(_, request):
            return _frame(_integer(request))
        case _:
            return None


def _answer_bytes(answer: Answer) -> int:
    number = _integer(answer.request)
    match answer.events[0]:
        case e.AskAnswered(sizes=sizes):
            return _frame(number, _blob(_SIZE_BYTES * len(sizes)))
        case e.HaveChanged(names=names, units=units):
            bitmap = -(-len(names) // 8)
            head = _frame(number, _integer(bitmap))
            return head + SLICE_HEAD_BYTES + bitmap + _units_bytes(units)
        case e.ObjectsDelivered(objects=objects):
            misses = sum(
                len(event.misses)
                for event in answer.events
                if isinstance(event, e.RequestEnded)
            )
            lengths = sum([_integer(size) for _, size in objects])
            count = len(objects) + misses
            return _frame(number, 1 if count < 16 else 3, lengths + misses, 1)
        case e.UnitDelivered():
            return _frame(number, _integer(UNIT_BYTES), 1)
        case e.HashesDelivered(size=size, first=first, count=count):
            counts = _integer(size) + _integer(first)
            return _frame(number, counts, _blob(32 * count), _SIGNED_BYTES)
        case e.RequestEnded(outcome=e.Outcome.ELSEWHERE):
            return _frame(number, _CHECKSUM_BYTES)
        case _:
            return _frame(number)


def _have_bytes(have: e.HaveChanged) -> int:
    # Names beside each other are a byte, others two or three.
    names = _frame(3, _blob(2 * len(have.names))) if have.names else 0
    return names + _units_bytes(have.units)


def _units_bytes(units: tuple[e.UnitsHad, ...]) -> int:
    if not units:
        return 0
    maps = [1 + 3 + _blob(max(had.units.bit_length() - 1, 0) // 8 + 1) for had in units]
    return _frame(3, 1 if len(maps) < 16 else 3, *maps)


def _frame(*fields: int) -> int:
    """Return the length of a frame whose message has fields of these lengths."""
    return _FRAME_BYTES + 2 + sum(fields)


def _blob(size: int) -> int:
    return size + (2 if size < 256 else 3 if size < 65_536 else 5)


def _integer(number: int) -> int:
    for bound, length in ((1 << 7, 1), (1 << 8, 2), (1 << 16, 3), (1 << 32, 5)):
        if number < bound:
            return length
    return 9
