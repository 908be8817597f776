"""The door through which objects enter an archive repository, durable and in groups.

An fsync for every object would allow a few hundred a second. So uploads that end at
about the same time share one: their files are written aside, synced together, moved
to their places, the places synced, and only then is any of them answered. What is
visible has durable content, and a commit comes after what came with it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import trio

from p2p.errors import Error, ReadOnlyError
from p2p.ostree.disk import syncfs, write_file, writing
from p2p.ostree.objects import Commit, ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.ostree.room import Room
from p2p.web.treehub.arrival import DEFAULT_MAX_CONTENT_BYTES, Arrival
from p2p.web.treehub.completeness import find_missing

_ROOM_PREFIX = "p2p-upload-"
# Larger objects are written while they come; so many smaller ones wait in memory.
SMALL_BYTES = 128 << 10
_MAX_BUFFERED = 256
_BATCH = 256
# One fsync each for so few; beyond it the whole filesystem is synced once.
_FEW = 3
_SPACE_CHECK_BYTES = 64 << 20


@dataclass(slots=True, eq=False)
class _Upload:
    """An object that has come completely; `data` is None once it is in a file."""

    name: ObjectName
    data: bytes | None = None
    arrival: Arrival | None = None
    settled: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None

    @property
    def path(self) -> str:
        """The finished file."""
        if self.arrival is None:
            raise RuntimeError(f"{self.name} was not written yet")
        return self.arrival.path

    def fail(self, error: Exception) -> None:
        """Say why it does not become an object, and remove its file."""
        self.error = self.error or error
        if self.arrival is not None:
            self.arrival.discard()


class Ingest:
    """Takes objects into one repository; `run` must be running."""

    def __init__(
        self, repo: Repo, *, max_content_bytes: int = DEFAULT_MAX_CONTENT_BYTES
    ) -> None:
        """Make a place for unfinished uploads, clearing away those of dead servers.

        Where the disk can only be read, that is said to who uploads.
        """
        self._repo = repo
        self._max_content_bytes = max_content_bytes
        self._room: Room | None = None
        self._entering = threading.Lock()
        with contextlib.suppress(ReadOnlyError), writing(repo.path):
            self._room = self._open_room()
        self._queue: list[_Upload] = []
        self._unsettled: dict[ObjectName, trio.Event] = {}
        self._held: list[_Upload] = []
        self._placed: list[_Upload] = []
        self._buffered = 0
        self._unchecked = _SPACE_CHECK_BYTES
        self._wake = trio.Event()

    def _open_room(self) -> Room:
        return Room(os.path.join(self._repo.path, "tmp"), _ROOM_PREFIX)

    def close(self) -> None:
        """Remove what is unfinished."""
        if self._room is not None:
            self._room.close()

    async def has(self, name: ObjectName) -> bool:
        """Tell whether the object is here, durably."""
        while (settled := self._unsettled.get(name)) is not None:
            await settled.wait()
        return self._repo.has(name)

    async def put(
        self, name: ObjectName, body: AsyncIterator[bytes], length: int | None
    ) -> bool:
        """Take an object; tell whether it is new. It is durable then.

        Args:
            name: what the bytes must be.
            body: the bytes as they are stored in an archive repository.
            length: how many, if that is known.

        Raises:
            FormatError, LimitError, IntegrityError: the bytes are not that object.
            NoSpaceError, ReadOnlyError, RepositoryError: as the disk says.

        """
        if await self.has(name):
            return False
        small = length is not None and length <= SMALL_BYTES
        if small and self._buffered < _MAX_BUFFERED:
            self._buffered += 1
            try:
                data = b"".join([piece async for piece in body])
                return await self._settle(_Upload(name, data))
            finally:
                self._buffered -= 1
        arrival = await self._write_aside(name, body, length or 0)
        return await self._settle(_Upload(name, arrival=arrival))

    async def _write_aside(
        self, name: ObjectName, body: AsyncIterator[bytes], length: int
    ) -> Arrival:
        """Return a large object as a finished file in the room."""
        with writing(self._repo.path):
            self._repo.check_free_space(length)
            arrival = await trio.to_thread.run_sync(self._create, name)
            try:
                async for piece in body:
                    self._check_space(len(piece))
                    await trio.to_thread.run_sync(arrival.write, piece)
                await trio.to_thread.run_sync(arrival.finish)
            except BaseException:
                arrival.discard()
                raise
        return arrival

    def _create(self, name: ObjectName) -> Arrival:
        """Return a new file; several threads may call this at once."""
        with self._entering:
            if self._room is None:
                self._room = self._open_room()
        limit = self._max_content_bytes
        try:
            return Arrival(name, self._room.new_path(), max_content_bytes=limit)
        except FileNotFoundError:
            self._room.renew()
            return Arrival(name, self._room.new_path(), max_content_bytes=limit)

    async def _settle(self, upload: _Upload) -> bool:
        """Wait until the object is durable; tell whether nobody was faster."""
        if await self.has(upload.name):
            if upload.arrival is not None:
                upload.arrival.discard()
            return False
        self._unsettled[upload.name] = upload.settled
        self._queue.append(upload)
        self._wake.set()
        await upload.settled.wait()
        if upload.error is not None:
            raise upload.error
        return True

    # -- making durable ----------------------------------------------------------

    async def run(self) -> None:
        """Make uploads durable until cancelled."""
        while True:
            if not (self._queue or self._held or self._placed):
                self._wake = trio.Event()
                await self._wake.wait()
            batch, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
            for upload in await trio.to_thread.run_sync(self._advance, batch):
                del self._unsettled[upload.name]
                upload.settled.set()

    def _advance(self, arrived: list[_Upload]) -> list[_Upload]:
        """Bring every upload one step on; return those that are settled now.

        An upload is written; synced and moved to its place; its place is synced. The
        data of some and the places of those before them share one sync. Commits wait
        one step longer, until what came together with them is durable.
        """
        placed, held = self._placed, self._held
        self._placed, self._held = [], []
        failed = [upload for upload in arrived if not self._write(upload)]
        written = [upload for upload in arrived if upload.error is None]
        try:
            with writing(self._repo.path):
                self._sync(written, placed)
        except Error as error:
            for upload in placed:
                self._withdraw(upload)
            return failed + _fail(placed + held + written, error)
        commits = [up for up in written if up.name.type is ObjectType.COMMIT]
        others = [up for up in written if up.name.type is not ObjectType.COMMIT]
        try:
            with writing(self._repo.path), self._repo.lock(exclusive=False):
                failed += self._move(held + others)
        except Error as error:
            return failed + placed + _fail(held + others + commits, error)
        self._held = commits
        return failed + placed

    def _write(self, upload: _Upload) -> bool:
        """Write the upload aside; False if it is not what it claims or fits nowhere."""
        if upload.data is None:
            return True
        try:
            with writing(self._repo.path):
                self._check_space(len(upload.data))
                upload.arrival = self._create(upload.name)
                upload.arrival.write(upload.data)
                upload.arrival.finish()
        except Error as error:
            upload.fail(error)
            return False
        upload.data = None
        return True

    def _check_space(self, size: int) -> None:
        """Look at the free space now and then."""
        self._unchecked += size
        if self._unchecked >= _SPACE_CHECK_BYTES:
            self._repo.check_free_space()
            self._unchecked = 0

    def _sync(self, written: list[_Upload], placed: list[_Upload]) -> None:
        """Make the data of some uploads durable, and the places of others."""
        if not self._repo.config.fsync:
            return
        paths = {upload.path for upload in written}
        for upload in placed:
            directory = os.path.dirname(self._repo.object_path(upload.name))
            paths |= {directory, self._repo.objects}
        if len(paths) > _FEW:
            paths, sync = {self._repo.path}, syncfs
        else:
            sync = os.fsync
        for path in sorted(paths, reverse=True):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sync(fd)
            finally:
                os.close(fd)

    def _move(self, uploads: list[_Upload]) -> list[_Upload]:
        """Move files to their places; return those that cannot be."""
        failed = []
        for upload in uploads:
            place = self._repo.object_path(upload.name)
            try:
                if upload.name.type is ObjectType.COMMIT:
                    self._mark_partial(upload)
                try:
                    os.rename(upload.path, place)
                except FileNotFoundError:
                    os.makedirs(os.path.dirname(place), 0o775, exist_ok=True)
                    os.rename(upload.path, place)
            except Error as error:
                upload.fail(error)
                failed.append(upload)
            else:
                self._placed.append(upload)
        return failed

    def _mark_partial(self, upload: _Upload) -> None:
        """Mark a commit that lacks objects, as libostree does, before it is visible.

        So no tool takes it for complete.
        """
        with open(upload.path, "rb") as file:
            missing = find_missing(self._repo, Commit.parse(file.read()))
        if missing:
            mark = self._repo.partial_path(upload.name.checksum)
            write_file(mark, b"", fsync=self._repo.config.fsync)

    def _withdraw(self, upload: _Upload) -> None:
        """Remove an object that may not survive a power cut after all."""
        with contextlib.suppress(OSError):
            os.unlink(self._repo.object_path(upload.name))


def _fail(uploads: list[_Upload], error: Exception) -> list[_Upload]:
    for upload in uploads:
        upload.fail(error)
    return uploads
