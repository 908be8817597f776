"""Received objects go to the writer in batches, and what becomes of them is told."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from p2p.agent import stager as stager_module
from p2p.agent.stager import BATCH_BYTES, BATCH_OBJECTS, Outcome, Stager
from p2p.errors import Error, NoSpaceError
from p2p.ostree.messages import (
    AbortObject,
    AddPiece,
    BeginObject,
    Done,
    Form,
    Rejection,
    Request,
    StageObjects,
)
from p2p.ostree.objects import ObjectName
from tests.ostree.samples import file_object

A, B, C = (file_object(bytes([n]) * 100)[0] for n in range(3))
TORN = "torn"


class Scribe:
    """A writer that notes requests, rejects some objects, and can be held up."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.rejects: set[ObjectName] = set()
        self.error: Error | None = None
        self._gate = trio.Event()
        self._gate.set()

    def hold(self) -> None:
        self._gate = trio.Event()

    def release(self) -> None:
        self._gate.set()

    async def call(self, request: Request) -> Done:
        self.requests.append(request)
        await self._gate.wait()
        if self.error is not None:
            raise self.error
        return Done(tuple(Rejection(name, TORN) for name in self._rejected(request)))

    def _rejected(self, request: Request) -> list[ObjectName]:
        match request:
            case StageObjects(objects):
                return [name for name, _, _ in objects if name in self.rejects]
            case AddPiece(name):
                return [name] if name in self.rejects else []
        return []


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()


@asynccontextmanager
async def running(
    scribe: Scribe, report: Callable[[Outcome], None] = lambda _: None
) -> AsyncIterator[Stager]:
    """A stager at work; at the end of the block all that was queued is done."""
    stager = Stager(scribe, report, gather=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stager.run)
        yield stager
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def names(request: Request) -> list[ObjectName]:
    assert isinstance(request, StageObjects)
    return [name for name, _, _ in request.objects]


async def test_what_comes_while_the_writer_works_goes_in_one_batch(
    scribe: Scribe,
) -> None:
    outcomes: list[Outcome] = []
    async with running(scribe, outcomes.append) as stager:
        scribe.hold()
        stager.add(A, Form.CANONICAL, b"a")
        await trio.testing.wait_all_tasks_blocked()
        stager.add(B, Form.FILEZ, b"bb")
        stager.add(C, Form.CANONICAL, b"ccc")
        scribe.release()
    assert [names(request) for request in scribe.requests] == [[A], [B, C]]
    assert outcomes == [Outcome((A,), (), 1), Outcome((B, C), (), 5)]


async def test_what_comes_one_after_the_other_is_gathered_for_a_moment(
    scribe: Scribe, autojump_clock: trio.testing.MockClock
) -> None:
    stager = Stager(scribe, lambda _: None, gather=0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stager.run)
        stager.add(A, Form.CANONICAL, b"a")
        await trio.sleep(0.006)
        stager.add(B, Form.CANONICAL, b"b")
        await trio.sleep(0.006)
        stager.add(C, Form.CANONICAL, bytes(BATCH_BYTES))
        await trio.sleep(0.001)
        # A full batch waits for nothing.
        assert [names(request) for request in scribe.requests] == [[A, B], [C]]
        nursery.cancel_scope.cancel()


async def test_a_batch_is_bounded_in_bytes_and_objects(scribe: Scribe) -> None:
    async with running(scribe) as stager:
        for _ in range(5):
            stager.add(A, Form.CANONICAL, bytes(BATCH_BYTES // 2))
        for _ in range(BATCH_OBJECTS + 1):
            stager.add(B, Form.CANONICAL, b"")
    assert [len(names(r)) for r in scribe.requests] == [2, 2, BATCH_OBJECTS, 2]


async def test_rejected_objects_are_not_told_to_be_staged(scribe: Scribe) -> None:
    outcomes: list[Outcome] = []
    scribe.rejects = {B}
    async with running(scribe, outcomes.append) as stager:
        for name in (A, B, C):
            stager.add(name, Form.CANONICAL, b"12")
    assert outcomes == [Outcome((A, C), (Rejection(B, TORN),), 6)]


async def test_what_was_not_credited_is_not_given_back(scribe: Scribe) -> None:
    outcomes: list[Outcome] = []
    async with running(scribe, outcomes.append) as stager:
        stager.add(A, Form.CANONICAL, b"12", credit=False)
        stager.add(B, Form.CANONICAL, b"345")
    assert outcomes == [Outcome((A, B), (), 3)]


async def test_pieces_go_in_order_and_the_last_one_stages(scribe: Scribe) -> None:
    outcomes: list[Outcome] = []
    async with running(scribe, outcomes.append) as stager:
        stager.begin(A, Form.FILEZ, None)
        stager.add_piece(A, b"123", last=False)
        stager.add_piece(A, b"45", last=True)
        stager.begin(B, Form.CANONICAL, 9)
        stager.abort(B)
    assert scribe.requests == [
        BeginObject(A, Form.FILEZ, None),
        AddPiece(A, b"123", last=False),
        AddPiece(A, b"45", last=True),
        BeginObject(B, Form.CANONICAL, 9),
        AbortObject(B),
    ]
    assert outcomes == [Outcome((), (), 3), Outcome((A,), (), 2)]


async def test_pieces_behind_a_rejected_one_are_not_sent_but_given_back(
    scribe: Scribe,
) -> None:
    outcomes: list[Outcome] = []
    scribe.rejects = {A}
    async with running(scribe, outcomes.append) as stager:
        stager.begin(A, Form.CANONICAL, 9)
        for _ in range(3):
            stager.add_piece(A, b"123", last=False)
    assert len(scribe.requests) == 2
    assert outcomes == [
        Outcome((), (Rejection(A, TORN),), 3),
        Outcome((), (), 3),
        Outcome((), (), 3),
    ]


async def test_a_rejected_object_begun_again_is_sent_again(scribe: Scribe) -> None:
    outcomes: list[Outcome] = []
    async with running(scribe, outcomes.append) as stager:
        scribe.rejects = {A}
        stager.begin(A, Form.CANONICAL, 6)
        stager.add_piece(A, b"bad", last=False)
        stager.add_piece(A, b"bad", last=True)
        await trio.testing.wait_all_tasks_blocked()
        scribe.rejects = set()
        stager.begin(A, Form.CANONICAL, 3)
        stager.add_piece(A, b"fit", last=True)
    assert outcomes[-1] == Outcome((A,), (), 3)


async def test_pieces_and_whole_objects_take_turns(scribe: Scribe) -> None:
    async with running(scribe) as stager:
        stager.begin(A, Form.CANONICAL, 2)
        stager.add_piece(A, b"1", last=False)
        stager.add_piece(A, b"2", last=True)
        stager.add(B, Form.CANONICAL, b"whole")
    kinds = [type(request) for request in scribe.requests]
    assert kinds == [BeginObject, StageObjects, AddPiece, AddPiece]


async def test_a_file_is_sent_in_pieces_and_not_credited(scribe: Scribe) -> None:
    outcomes: list[Outcome] = []
    async with running(scribe, outcomes.append) as stager:
        stager.add_file(A, 5, [b"123", b"45", b"more than it has"])
    assert scribe.requests == [
        BeginObject(A, Form.CANONICAL, 5),
        AddPiece(A, b"123", last=False),
        AddPiece(A, b"45", last=True),
    ]
    assert outcomes == [Outcome((A,), (), 0)]


async def test_a_file_is_left_at_its_first_rejected_piece(scribe: Scribe) -> None:
    outcomes: list[Outcome] = []
    scribe.rejects = {A}
    async with running(scribe, outcomes.append) as stager:
        stager.add_file(A, 6, [b"123", b"456"])
    assert len(scribe.requests) == 2
    assert outcomes == [Outcome((), (Rejection(A, TORN),), 0)]


async def test_a_file_that_is_too_short_is_rejected(scribe: Scribe) -> None:
    outcomes: list[Outcome] = []
    async with running(scribe, outcomes.append) as stager:
        stager.add_file(A, 6, [b"1234"])
    assert scribe.requests[-1] == AbortObject(A)
    assert outcomes == [Outcome((), (Rejection(A, "its file lacks 2 bytes"),), 0)]


async def test_after_so_many_bytes_they_are_made_durable(
    scribe: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stager_module, "SYNC_BYTES", 10)
    async with running(scribe) as stager:
        for _ in range(2):
            stager.add(A, Form.CANONICAL, bytes(6))
            await trio.testing.wait_all_tasks_blocked()
        stager.begin(B, Form.CANONICAL, 20)
        stager.add_piece(B, bytes(9), last=False)
        stager.add_piece(B, bytes(11), last=True)
        stager.add_file(C, 12, [bytes(12)])
    kinds = [type(request).__name__ for request in scribe.requests]
    assert kinds == [
        "StageObjects",
        "StageObjects",
        "Sync",
        "BeginObject",
        "BeginObject",
        "AddPiece",
        "Sync",
        "AddPiece",
        "AddPiece",
        "Sync",
    ]


async def test_what_the_writer_reports_ends_it(scribe: Scribe) -> None:
    scribe.error = NoSpaceError("full")
    stager = Stager(scribe, lambda _: None)
    stager.add(A, Form.CANONICAL, b"a")
    with pytest.raises(NoSpaceError):
        await stager.run()
