"""Hands received objects to the writer in batches and reports what became of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import trio

from p2p.agent.writing import Writer
from p2p.ostree.messages import (
    AbortObject,
    AddPiece,
    BeginObject,
    Form,
    Rejection,
    Request,
    StageObjects,
    Sync,
)
from p2p.ostree.objects import ObjectName

# One batch keeps the writer busy for some milliseconds while the next one fills.
BATCH_BYTES = 1 << 20
BATCH_OBJECTS = 512
# What arrives within this goes together: each call wakes another thread or process.
GATHER_SECONDS = 0.005
# A power cut costs at most the verification of so much (see `p2p.ostree.stage`).
SYNC_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the writer said of some objects.

    Attributes:
        staged: these are verified and kept.
        rejected: these were not what their names say.
        consumed: bytes that no longer take memory here.

    """

    staged: tuple[ObjectName, ...]
    rejected: tuple[Rejection, ...]
    consumed: int


class Stager:
    """A queue in front of the writer; `run` empties it."""

    def __init__(
        self,
        writer: Writer,
        report: Callable[[Outcome], None],
        *,
        gather: float = GATHER_SECONDS,
    ) -> None:
        """Report after each batch, in the task of `run`; `gather` is in seconds."""
        self._gathers = gather
        self._writer = writer
        self._report = report
        self._whole: deque[tuple[ObjectName, Form, bytes, bool]] = deque()
        self._whole_bytes = 0
        self._pieces: deque[Request] = deque()
        self._files: deque[tuple[ObjectName, int, Iterator[bytes]]] = deque()
        self._dead: set[ObjectName] = set()
        self._wake = trio.Event()
        self._unsynced = 0

    def add(
        self, name: ObjectName, form: Form, data: bytes, *, credit: bool = True
    ) -> None:
        """Queue a whole object; `credit` says whether to report it as consumed."""
        self._whole.append((name, form, data, credit))
        self._whole_bytes += len(data)
        self._wake.set()

    def add_file(self, name: ObjectName, size: int, pieces: Iterable[bytes]) -> None:
        """Queue an object in canonical form that lies in a file."""
        self._files.append((name, size, iter(pieces)))
        self._wake.set()

    def begin(self, name: ObjectName, form: Form, size: int | None) -> None:
        """Queue the start of an object that comes in pieces; see `BeginObject`."""
        self._pieces.append(BeginObject(name, form, size))
        self._wake.set()

    def add_piece(self, name: ObjectName, data: bytes, *, last: bool) -> None:
        """Queue the next bytes of an object that was begun."""
        self._pieces.append(AddPiece(name, data, last))
        self._wake.set()

    def abort(self, name: ObjectName) -> None:
        """Queue that an object begun will not be finished."""
        self._pieces.append(AbortObject(name))
        self._wake.set()

    async def run(self) -> None:
        """Feed the writer until cancelled; raises what the writer reports."""
        while True:
            if not (self._whole or self._pieces or self._files):
                self._wake = trio.Event()
                await self._wake.wait()
            if self._pieces:
                await self._send_piece(self._pieces.popleft())
            if self._whole:
                await self._gather()
                await self._send_batch()
            if self._files:
                await self._send_file(*self._files.popleft())
            if self._unsynced >= SYNC_BYTES:
                self._unsynced = 0
                await self._writer.call(Sync())

    async def _gather(self) -> None:
        """Wait a moment for more, unless there is enough for one call."""
        with trio.move_on_after(self._gathers):
            while self._whole_bytes < BATCH_BYTES and not (self._pieces or self._files):
                self._wake = trio.Event()
                await self._wake.wait()

    async def _send_batch(self) -> None:
        batch: list[tuple[ObjectName, Form, bytes]] = []
        size = credited = 0
        while self._whole and size < BATCH_BYTES and len(batch) < BATCH_OBJECTS:
            name, form, data, credit = self._whole.popleft()
            batch.append((name, form, data))
            size += len(data)
            self._whole_bytes -= len(data)
            credited += len(data) if credit else 0
        done = await self._writer.call(StageObjects(tuple(batch)))
        self._unsynced += size
        self._done((name for name, _, _ in batch), done.rejected, credited)

    async def _send_file(
        self, name: ObjectName, size: int, pieces: Iterator[bytes]
    ) -> None:
        await self._writer.call(BeginObject(name, Form.CANONICAL, size))
        left = size
        for piece in pieces:
            left -= len(piece)
            done = await self._writer.call(AddPiece(name, piece, left <= 0))
            if done.rejected or left <= 0:
                self._unsynced += size
                self._done([name], done.rejected, 0)
                return
        await self._writer.call(AbortObject(name))
        self._done([], (Rejection(name, f"its file lacks {left} bytes"),), 0)

    async def _send_piece(self, request: Request) -> None:
        match request:
            case AddPiece(name, data) if name in self._dead:
                # It was under way behind the rejected one: nothing new.
                self._done([], (), len(data))
                return
            case BeginObject(name):
                self._dead.discard(name)
        done = await self._writer.call(request)
        if isinstance(request, AddPiece):
            self._unsynced += len(request.data)
            self._dead.update(rejection.name for rejection in done.rejected)
            names = [request.name] if request.last else []
            self._done(names, done.rejected, len(request.data))

    def _done(
        self, names: Iterable[ObjectName], rejected: tuple[Rejection, ...], size: int
    ) -> None:
        bad = {rejection.name for rejection in rejected}
        staged = tuple(name for name in names if name not in bad)
        self._report(Outcome(staged, rejected, size))
