"""The staging store: objects of unfinished pulls, verified, durable, out of reach.

It is a repository of the same mode in `REPO/extensions/p2p/stage`, on the same
filesystem. Stock `ostree prune`, `admin cleanup` and `admin deploy` delete every
object in `objects/` that no ref reaches, and old files in `tmp/`; they leave this
place alone. What is here survives `kill -9`, and a power cut: after one, everything
that was not certainly on the disk is verified again before it counts.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from typing import Self

from p2p.errors import (
    DamagedObjectError,
    FormatError,
    IntegrityError,
    LockedError,
    ObjectNotFoundError,
)
from p2p.ostree import filez
from p2p.ostree.config import RepoMode
from p2p.ostree.content import MAX_CONTENT_BYTES, ObjectWriter, PlainWriter
from p2p.ostree.disk import syncfs, write_file, writing
from p2p.ostree.holdings import STAGE_PATH, Holdings
from p2p.ostree.lock import open_lock
from p2p.ostree.messages import Form
from p2p.ostree.objects import (
    FRAME_BYTES,
    Checksum,
    FileHeader,
    ObjectName,
    ObjectType,
    check_metadata,
    parse_frame,
    split_canonical,
)
from p2p.ostree.repo import Repo

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
# How often the free space is looked at while writing.
_SPACE_CHECK_BYTES = 64 << 20


class Stage:
    """The staging store of one repository, held by one process at a time or more.

    Attributes:
        target: the repository that the objects are for.
        repo: the staging store itself, a repository of the same mode.
        holdings: what both have together.

    """

    def __init__(self, target: Repo, *, boot_id: str | None = None) -> None:
        """Open the store, making it and recovering it after a power cut.

        Raises:
            ReadOnlyError, NoSpaceError: as the disk says.
            LockedError: a `prune` is clearing the store.

        """
        self.target = target
        self.fsync = target.config.fsync
        self._boot_id = boot_id or _read_boot_id()
        self._unsynced = False
        self._since_space_check = 0
        path = os.path.join(target.path, STAGE_PATH)
        with writing(path):
            self.repo = Repo.init(path, target.config.mode)
            self.repo.style = target.style
            self.holdings = Holdings(self.repo, target)
            self._lock = _shared_lock(path)
            self._tmp = tempfile.mkdtemp(prefix="writer-", dir=self._tmp_root)
            self._tmp_lock = open_lock(
                os.path.join(self._tmp, ".lock"), exclusive=True, timeout_seconds=0
            )
            self._count = 0
            self._recover()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def _tmp_root(self) -> str:
        return os.path.join(self.repo.path, "tmp")

    def close(self) -> None:
        """Let go of the store; what it holds stays, and is durable."""
        self.sync()
        shutil.rmtree(self._tmp)
        os.close(self._tmp_lock)
        os.close(self._lock)

    # -- after a crash ---------------------------------------------------------

    def _recover(self) -> None:
        """Remove what dead writers left, and distrust what a power cut may have cut."""
        suspect = False
        for entry in os.scandir(self._tmp_root):
            if not entry.name.startswith("writer-") or entry.path == self._tmp:
                continue
            try:
                fd = open_lock(f"{entry.path}/.lock", exclusive=True, timeout_seconds=0)
            except (LockedError, FileNotFoundError):
                continue
            boot_id = _unsynced_mark(entry.path)
            if boot_id == self._boot_id:
                # Its data is whole in memory, but may not have reached the disk.
                self._mark_unsynced()
            elif boot_id is not None:
                suspect = True
            shutil.rmtree(entry.path, ignore_errors=True)
            os.close(fd)
        if suspect:
            self._mark_unsynced()
            self.verify_all()
            self.sync()

    def _mark_unsynced(self) -> None:
        """Leave a durable mark, before any object, that this boot's data may tear."""
        if not self._unsynced:
            self._unsynced = True
            path = os.path.join(self._tmp, "unsynced")
            write_file(path, self._boot_id.encode(), fsync=self.fsync)

    def verify_all(self) -> list[ObjectName]:
        """Recompute every staged object; remove and return those that are damaged."""
        damaged = []
        for name in self.repo.all_objects():
            if name.type is ObjectType.COMMITMETA:
                continue
            try:
                if name.type is ObjectType.FILE:
                    with self.repo.open_content(name.checksum) as reader:
                        reader.check(name.checksum, str(name))
                else:
                    self.repo.load_metadata(name)
            except (DamagedObjectError, FormatError):
                os.unlink(self.repo.object_path(name))
                damaged.append(name)
            except ObjectNotFoundError:
                # Another writer published it in the meantime.
                continue
        return damaged

    # -- writing -----------------------------------------------------------------

    def put(self, name: ObjectName, form: Form, data: bytes) -> None:
        """Verify a whole object and store it; one that is there already is skipped.

        Raises:
            IntegrityError, FormatError: it is not what its name says.
            NoSpaceError, ReadOnlyError, RepositoryError: it cannot be kept here.

        """
        if os.path.lexists(self.repo.object_path(name)):
            return
        if name.type is not ObjectType.FILE:
            check_metadata(name, data)
            self._account(len(data))
            with writing(self.repo.path):
                self._store(name, PlainWriter(self._new_path()), data)
            return
        upload = Upload(self, name, form, len(data))
        try:
            upload.write(data)
            upload.finish()
        except BaseException:
            upload.discard()
            raise

    def put_commitmeta(self, commit: Checksum, data: bytes) -> None:
        """Store a commit's detached metadata, replacing what was there."""
        name = ObjectName(commit, ObjectType.COMMITMETA)
        with writing(self.repo.path):
            self._store(name, PlainWriter(self._new_path()), data)

    def _store(self, name: ObjectName, writer: ObjectWriter, data: bytes) -> None:
        try:
            writer.write(data)
            writer.finish()
            self.adopt(name, writer.path)
        except BaseException:
            writer.discard()
            raise

    def adopt(self, name: ObjectName, path: str) -> None:
        """Move a finished file to its place."""
        self._mark_unsynced()
        place = self.repo.object_path(name)
        try:
            os.rename(path, place)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(place), 0o775, exist_ok=True)
            os.rename(path, place)

    def _new_path(self) -> str:
        self._count += 1
        return f"{self._tmp}/{self._count}"

    def create(self, header: FileHeader, size: int) -> ObjectWriter:
        """Start a file object in the repository's mode."""
        return self.repo.style.create(self._new_path(), header, size)

    def create_plain(self) -> ObjectWriter:
        """Start a file that is kept byte for byte."""
        return PlainWriter(self._new_path())

    def _account(self, size: int) -> None:
        self._since_space_check += size
        if self._since_space_check >= _SPACE_CHECK_BYTES:
            self._since_space_check = 0
            self.target.check_free_space()

    def sync(self) -> None:
        """Make everything staged so far durable; an error is fatal for the batch."""
        if not self.fsync or not self._unsynced:
            return
        fd = os.open(self.repo.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with writing(self.repo.path):
                syncfs(fd)
        finally:
            os.close(fd)

    # -- clearing --------------------------------------------------------------------

    def remove(self, names: list[ObjectName]) -> None:
        """Remove objects that are in the repository now."""
        for name in names:
            try:
                os.unlink(self.repo.object_path(name))
            except FileNotFoundError:
                continue


class Upload:
    """One object arriving in pieces, verified as it comes.

    Canonical form is unpacked into the repository's own; a `.filez` is kept byte for
    byte in an archive repository and must inflate to what its name says.
    """

    def __init__(self, stage: Stage, name: ObjectName, form: Form, size: int) -> None:
        """Start an object of `size` bytes; nothing is visible before `finish`."""
        self.name = name
        self._size = size
        self._left = size
        self._stage = stage
        self._digest = hashlib.sha256()
        self._head = b""
        self._writer: ObjectWriter | None = None
        self._reader: filez.FilezReader | None = None
        if form is Form.FILEZ:
            if stage.target.config.mode is not RepoMode.ARCHIVE:
                raise FormatError("a .filez can only be kept in an archive repository")
            self._reader = filez.FilezReader(limit=MAX_CONTENT_BYTES)
            with writing(stage.repo.path):
                self._writer = stage.create_plain()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._left -= len(data)
        if self._left < 0:
            raise self._size_error()
        self._stage._account(len(data))  # noqa: SLF001
        with writing(self._stage.repo.path):
            if self._reader is not None and self._writer is not None:
                for piece in self._reader.feed(data):
                    self._digest.update(piece)
                self._writer.write(data)
                return
            self._digest.update(data)
            if self._writer is None:
                data = self._begin(data)
            if data and self._writer is not None:
                self._writer.write(data)

    def _begin(self, data: bytes) -> bytes:
        """Start the file once its header is complete; return the content after it."""
        self._head += data
        if len(self._head) < FRAME_BYTES:
            return b""
        end = FRAME_BYTES + parse_frame(self._head)
        if len(self._head) < end:
            return b""
        header, _ = split_canonical(self._head[:end])
        content, self._head = self._head[end:], b""
        if header.is_symlink and self._size != end:
            raise FormatError("file object: symbolic link with content")
        self._writer = self._stage.create(header, self._size - end)
        return content

    def finish(self) -> None:
        """Check the object and move it to its place.

        Raises IntegrityError or FormatError if it is not what its name says.
        """
        if self._left:
            raise self._size_error()
        if self._reader is not None:
            self._reader.finish()
        got = self._digest.hexdigest()
        if got != self.name.checksum or self._writer is None:
            raise IntegrityError(
                f"object {self.name}", expected=self.name.checksum, got=got
            )
        with writing(self._stage.repo.path):
            self._writer.finish()
            self._stage.adopt(self.name, self._writer.path)
        self._writer = None

    def _size_error(self) -> IntegrityError:
        return IntegrityError(
            f"object {self.name}",
            expected=f"{self._size} bytes as announced",
            got=f"{self._size - self._left}",
        )

    def discard(self) -> None:
        """Remove what was written, if it did not become an object."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None


def _read_boot_id() -> str:
    with open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()


def _shared_lock(path: str) -> int:
    return open_lock(os.path.join(path, ".lock"), exclusive=False, timeout_seconds=30)


def _unsynced_mark(directory: str) -> str | None:
    """Return the boot in which a writer left objects not certainly on the disk."""
    try:
        with open(f"{directory}/unsynced", encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return None
