"""The staging store: objects of unfinished pulls, verified, durable, out of reach.

It is a repository of the same mode in `REPO/extensions/p2p/stage`, on the same
filesystem. Stock `ostree prune`, `admin cleanup` and `admin deploy` delete every
object in `objects/` that no ref reaches, and old files in `tmp/`; they leave this
place alone. What is here survives `kill -9`, and a power cut: after one, everything
that was not certainly on the disk is verified again before it counts.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Self

from p2p.errors import (
    ConfigError,
    DamagedObjectError,
    FormatError,
    IntegrityError,
    ObjectNotFoundError,
    RepositoryError,
)
from p2p.ostree.content import ObjectWriter, PlainWriter
from p2p.ostree.disk import (
    disk_error,
    exists,
    sync_directory,
    sync_file,
    syncfs,
    write_file,
    writing,
)
from p2p.ostree.holdings import STAGE_PATH, Holdings, open_store, store_mode
from p2p.ostree.lock import open_lock, try_lock
from p2p.ostree.objects import (
    Checksum,
    FileHeader,
    ObjectName,
    ObjectType,
    check_metadata,
    checksum_of,
    split_canonical,
)
from p2p.ostree.repo import Repo
from p2p.ostree.room import Room

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
# How often the free space is looked at while writing, as others write too.
_SPACE_CHECK_BYTES = 64 << 20
# Whoever comes first after a power cut verifies the store, at the disk's speed.
_RECOVERY_SECONDS = 600.0
_REMOVE = "Remove {}: it holds only what unfinished pulls have fetched."


class Stage:
    """The staging store of one repository, held by one process at a time or more.

    `state/boot` in it names the boot in which it was recovered last, and a file
    `state/unsynced-…` says that a writer has staged what may not be on the disk yet.

    Attributes:
        target: the repository that the objects are for.
        repo: the staging store itself, a repository.
        holdings: what both have together.
        fsync: whether anything is made durable at all.

    """

    def __init__(self, target: Repo, *, boot_id: str | None = None) -> None:
        """Open the store, making it and recovering it after a power cut.

        Raises:
            ReadOnlyError, NoSpaceError, RepositoryError: as the disk says.
            LockedError: a `prune` is clearing the store.

        """
        self.target = target
        self.fsync = target.config.fsync
        self._sync_each = target.config.per_object_fsync
        self._boot_id = boot_id or _read_boot_id()
        self._mark: str | None = None
        self._touched: set[str] = set()
        self._sync_error: RepositoryError | None = None
        self._spare_bytes = 0
        path = os.path.join(target.path, STAGE_PATH)
        with writing(path), contextlib.ExitStack() as stack:
            self.repo = _make_store(target, path)
            self.holdings = Holdings(self.repo, target)
            # Open as long as the store is: `syncfs` reports errors since then.
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, self._fd)
            stack.callback(os.close, self._enter())
            self._room = Room(os.path.join(path, "tmp"), "writer-")
            stack.callback(self._room.close)
            self._held = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store; what it holds stays, and is durable."""
        with self._held:
            if self._mark is not None:
                self.sync()

    def _state_path(self, name: str) -> str:
        return os.path.join(self.repo.path, "state", name)

    # -- after a crash ---------------------------------------------------------

    def _enter(self) -> int:
        """Return a shared lock on the store, recovered since the last boot."""
        lock = os.path.join(self.repo.path, ".lock")
        fd = open_lock(lock, exclusive=False, timeout_seconds=_RECOVERY_SECONDS)
        if self._is_recovered():
            return fd
        os.close(fd)
        # Nobody may count on an object before all were verified.
        fd = open_lock(lock, exclusive=True, timeout_seconds=_RECOVERY_SECONDS)
        try:
            if not self._is_recovered():
                self._recover()
            try_lock(fd, exclusive=False)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _is_recovered(self) -> bool:
        try:
            with open(self._state_path("boot"), "rb") as file:
                return file.read(100) == self._boot_id.encode()
        except FileNotFoundError:
            return False

    def _recover(self) -> None:
        """Distrust what a power cut may have torn; the exclusive lock is held."""
        marks = [
            entry.path
            for entry in os.scandir(self._state_path(""))
            if entry.name.startswith("unsynced-")
        ]
        if marks:
            self.verify_all()
            syncfs(self._fd)
        for mark in marks:
            os.unlink(mark)
        for ref, _ in self.repo.refs.all():
            # Of a publisher that died.
            self.repo.refs.delete(ref)
        write_file(self._state_path("boot"), self._boot_id.encode(), fsync=False)

    def verify_all(self) -> list[ObjectName]:
        """Recompute every staged object; remove and return those that are damaged.

        Detached metadata, for which no checksum vouches, counts as damaged.
        """
        damaged = [name for name in self.repo.all_objects() if not self._is_sound(name)]
        self.remove(damaged)
        return damaged

    def _is_sound(self, name: ObjectName) -> bool:
        if name.type is ObjectType.COMMITMETA:
            return False
        try:
            if name.type is ObjectType.FILE:
                with self.repo.open_content(name.checksum) as reader:
                    reader.check(name.checksum, str(name))
            else:
                self.repo.load_metadata(name)
        except (DamagedObjectError, FormatError):
            return False
        except ObjectNotFoundError:
            # Another writer published it in the meantime.
            return True
        return True

    def _mark_unsynced(self) -> None:
        """Leave a durable mark, before any object, that this boot's data may tear."""
        # Durable whatever `core.fsync` says: torn objects are not to be published.
        fd, self._mark = tempfile.mkstemp(prefix="unsynced-", dir=self._state_path(""))
        os.close(fd)
        sync_directory(self._state_path(""))

    # -- writing -----------------------------------------------------------------

    def has(self, name: ObjectName) -> bool:
        """Tell whether the object is staged."""
        return exists(self.repo.object_path(name))

    def put(self, name: ObjectName, data: bytes) -> None:
        """Verify a whole object in canonical form and keep it.

        One that is staged already, or in the repository, is left as it is; but a
        commit there may be partial, and is staged beside it.

        Raises:
            IntegrityError, FormatError: it is not what its name says.
            NoSpaceError, ReadOnlyError, RepositoryError: it cannot be kept here.

        """
        is_commit = name.type is ObjectType.COMMIT
        if self.has(name) or (not is_commit and self.target.has(name)):
            return
        if name.type is not ObjectType.FILE:
            check_metadata(name, data)
            with self.keeping(name):
                self._store(name, PlainWriter(self._room.new_path()), data)
            return
        got = checksum_of(data)
        if got != name.checksum:
            raise IntegrityError(f"object {name}", expected=name.checksum, got=got)
        header, begin = split_canonical(data)
        with self.keeping(name):
            writer = self.create(header, len(data) - begin)
            self._store(name, writer, memoryview(data)[begin:])

    def put_commitmeta(self, commit: Checksum, data: bytes) -> None:
        """Store a commit's detached metadata, replacing what was there."""
        name = ObjectName(commit, ObjectType.COMMITMETA)
        with self.keeping(name):
            self._store(name, PlainWriter(self._room.new_path()), data)

    def _store(
        self, name: ObjectName, writer: ObjectWriter, data: bytes | memoryview
    ) -> None:
        try:
            self.account(len(data))
            if data:
                writer.write(data)
            self.adopt(name, writer)
        except BaseException:
            writer.discard()
            raise

    @contextlib.contextmanager
    def keeping(self, name: ObjectName) -> Iterator[None]:
        """Turn what the disk says in the block into our errors, naming the object."""
        try:
            yield
        except OSError as error:
            raise _naming(name, disk_error(self.repo.path, error)) from error
        except RepositoryError as error:
            raise _naming(name, error) from error

    def create(self, header: FileHeader, size: int) -> ObjectWriter:
        """Start a file object in the store's mode, `size` bytes of content."""
        return self.repo.style.create(self._room.new_path(), header, size)

    def create_plain(self) -> PlainWriter:
        """Start a file that is kept byte for byte."""
        return PlainWriter(self._room.new_path())

    def adopt(self, name: ObjectName, writer: ObjectWriter) -> None:
        """Finish a file and make it the object of that name."""
        writer.finish()
        if self._mark is None:
            self._mark_unsynced()
        if self._sync_each and self.fsync:
            sync_file(writer.path)
        place = self.repo.object_path(name)
        try:
            os.rename(writer.path, place)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(place), 0o775, exist_ok=True)
            os.rename(writer.path, place)
        if self._sync_each:
            self._touched.add(os.path.dirname(place))

    def account(self, size: int) -> None:
        """Take note of bytes to be written; NoSpaceError if the reserve is reached."""
        self._spare_bytes -= size
        if self._spare_bytes < 0:
            spare = self.target.check_free_space(size)
            self._spare_bytes = min(spare, _SPACE_CHECK_BYTES) - size

    def sync(self) -> None:
        """Make everything staged so far durable, by whomever.

        Raises:
            RepositoryError: the disk failed. What was lost is not known, so every
                later call says so too, and the next to open the store verifies it.

        """
        if not self.fsync:
            return
        if self._sync_error is not None:
            raise self._sync_error
        try:
            with writing(self.repo.path):
                self._sync()
        except RepositoryError as error:
            self._sync_error = error
            with writing(self.repo.path), contextlib.suppress(FileNotFoundError):
                os.unlink(self._state_path("boot"))
            raise
        if self._mark is not None:
            os.unlink(self._mark)
            self._mark = None

    def _sync(self) -> None:
        if not self._sync_each:
            syncfs(self._fd)
            return
        # The files are durable already, each since it was finished.
        for directory in sorted(self._touched):
            sync_directory(directory)
        sync_directory(self.repo.objects)
        self._touched.clear()

    # -- clearing ----------------------------------------------------------------

    def remove(self, names: Iterable[ObjectName]) -> None:
        """Remove staged objects, such as those that are in the repository now."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.repo.object_path(name))


def clear_store(target: Repo) -> int:
    """Remove all that unfinished pulls have staged; return how many objects it was.

    Raises:
        LockedError: a writer has the store open.

    """
    path = os.path.join(target.path, STAGE_PATH)
    with writing(path):
        store = _make_store(target, path)
        lock = open_lock(os.path.join(path, ".lock"), exclusive=True, timeout_seconds=0)
        try:
            names = list(store.all_objects())
            for name in names:
                os.unlink(store.object_path(name))
        finally:
            os.close(lock)
    return len(names)


def _make_store(target: Repo, path: str) -> Repo:
    """Make the store if it is not there; return it.

    Raises:
        RepositoryError, ConfigError: something else is in its place.

    """
    place = os.path.join(os.path.realpath(target.path), STAGE_PATH)
    if os.path.realpath(path) != place:
        raise _misplaced(path)
    for directory in ("objects", "state", "tmp"):
        os.makedirs(os.path.join(path, directory), 0o775, exist_ok=True)
    if os.stat(path).st_dev != os.stat(target.objects).st_dev:
        raise _misplaced(path)
    try:
        Repo.init(path, store_mode(target.config.mode))
        return open_store(target)
    except ConfigError as error:
        raise ConfigError(
            error.where, error.reason, hint=_REMOVE.format(path)
        ) from None


def _misplaced(path: str) -> RepositoryError:
    return RepositoryError(
        f"{path} lies on another filesystem than the repository's objects, or is "
        "reached through a link: nothing can be moved from it into the repository",
        hint=_REMOVE.format(path),
    )


def _naming(name: ObjectName, error: RepositoryError) -> RepositoryError:
    return type(error)(f"object {name}: {error}", hint=error.hint)


def _read_boot_id() -> str:
    with open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()
