"""Other repositories of this machine as a source of objects (`--localcache-repo`).

What they hold is believed no more than what a stranger sends: the writer verifies each
object, and one that is damaged there is fetched from elsewhere instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from p2p.agent.survey import Survey
from p2p.agent.writing import Writer
from p2p.errors import (
    DamagedObjectError,
    FormatError,
    IntegrityError,
    ObjectNotFoundError,
)
from p2p.ostree.messages import AbortObject, AddPiece, BeginObject, Form, StageObjects
from p2p.ostree.objects import ObjectName, ObjectType
from p2p.ostree.repo import Repo

BATCH_BYTES = 1 << 20
# Larger files go to the writer piece by piece.
MAX_WHOLE_BYTES = 256 << 10

# What is wrong with a cache is no reason to end a pull that can do without.
_UNUSABLE = (DamagedObjectError, FormatError, IntegrityError, ObjectNotFoundError)


@dataclass(slots=True)
class _Batch:
    """What was read of some names; what is in neither is in no cache (any more)."""

    whole: list[tuple[ObjectName, Form, bytes]] = field(default_factory=list)
    large: list[tuple[ObjectName, Repo]] = field(default_factory=list)
    unusable: list[ObjectName] = field(default_factory=list)
    size: int = 0

    def add(self, name: ObjectName, data: bytes) -> None:
        self.whole.append((name, Form.CANONICAL, data))
        self.size += len(data)


class Caches:
    """Copies what one survey found in other repositories; `run` it beside the rest."""

    def __init__(
        self,
        repos: Sequence[Repo],
        *,
        survey: Survey,
        writer: Writer,
        arrived: Callable[[Sequence[ObjectName]], None],
        missed: Callable[[], None],
    ) -> None:
        """Copy from these, asked in this order.

        Args:
            repos: the repositories.
            survey: says what is there and wanted.
            writer: where it goes.
            arrived: called with what was staged.
            missed: called when something is to be fetched after all.

        """
        self._repos = repos
        self._survey = survey
        self._writer = writer
        self._arrived = arrived
        self._missed = missed
        self._wake = trio.Event()

    async def run(self) -> None:
        """Copy until cancelled.

        Raises:
            RepositoryError, WriterError: what the writer reported.

        """
        self._survey.on_cached = self._waken
        while True:
            if not self._survey.cached:
                self._wake = trio.Event()
                await self._wake.wait()
            names = self._survey.take_cached()
            while names:
                await self._copy(await trio.to_thread.run_sync(self._read, names))

    def _waken(self) -> None:
        self._wake.set()

    def _read(self, names: deque[ObjectName]) -> _Batch:
        """Read the first of these names, as many as fit into a batch."""
        batch = _Batch()
        while names and batch.size < BATCH_BYTES:
            name = names.popleft()
            if not any(_read_from(repo, name, batch) for repo in self._repos):
                batch.unusable.append(name)
        return batch

    async def _copy(self, batch: _Batch) -> None:
        staged: dict[ObjectName, int] = {}
        done = await self._writer.call(StageObjects(tuple(batch.whole)))
        rejected = {rejection.name for rejection in done.rejected}
        for name, _, data in batch.whole:
            if name in rejected:
                batch.unusable.append(name)
                continue
            staged[name] = len(data)
            if name.type is ObjectType.DIRTREE:
                self._survey.add_dirtree(name, data)
        for name, repo in batch.large:
            size = await self._copy_large(name, repo)
            if size is None:
                batch.unusable.append(name)
            else:
                staged[name] = size
        self._survey.acknowledge_copies(staged)
        self._arrived(list(staged))
        if batch.unusable:
            self._survey.miss(batch.unusable)
            self._missed()

    async def _copy_large(self, name: ObjectName, repo: Repo) -> int | None:
        """Copy a file piece by piece; return its size, None if it is not usable."""
        size = left = -1
        try:
            with repo.open_content(name.checksum) as reader:
                size = left = len(reader.header.frame()) + reader.size
                await self._writer.call(BeginObject(name, Form.CANONICAL, size))
                pieces = reader.canonical()
                while piece := await trio.to_thread.run_sync(next, pieces, b""):
                    left -= len(piece)
                    done = await self._writer.call(AddPiece(name, piece, left == 0))
                    if done.rejected:
                        return None
        except _UNUSABLE:
            left = -1
        if left:
            await self._writer.call(AbortObject(name))
            return None
        return size


def _read_from(repo: Repo, name: ObjectName, batch: _Batch) -> bool:
    """Read an object into a batch; tell whether it is there and may be usable."""
    try:
        if name.type is not ObjectType.FILE:
            batch.add(name, repo.load_metadata(name))
            return True
        with repo.open_content(name.checksum) as reader:
            if len(reader.header.frame()) + reader.size > MAX_WHOLE_BYTES:
                batch.large.append((name, repo))
            else:
                batch.add(name, b"".join(reader.canonical()))
    except _UNUSABLE:
        return False
    return True
