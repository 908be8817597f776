"""New objects of one repository: written aside, then made visible in one step.

The files wait in a scratch directory below `tmp/`.
Source of the order: libostree `ostree-repo-commit.c` (ostree_repo_commit_transaction).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Self

from p2p.errors import RepositoryError
from p2p.ostree.content import ObjectWriter, PlainWriter
from p2p.ostree.disk import sync_directory, sync_file, syncfs, writing
from p2p.ostree.objects import (
    MAX_METADATA_BYTES,
    Checksum,
    FileHeader,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from p2p.ostree.room import Room

_PREFIX = "p2p-commit-"
# How often the free space is looked at while writing.
_SPACE_CHECK_BYTES = 64 << 20


class Transaction:
    """Collects objects; nothing is visible before `publish`. A context manager.

    `has`, `add_metadata`, `create` and `adopt` may be called from several threads.
    """

    def __init__(self, repo: Repo) -> None:
        """Make the waiting room.

        Raises:
            RepositoryError: the repository's configuration asks for what only
                libostree does.
            ReadOnlyError, NoSpaceError: as the disk says.

        """
        if repo.config.unknown:
            raise RepositoryError(
                f"{repo.path}: not written to, because of its setting "
                f"{repo.config.unknown[0]}",
                hint="Use `ostree commit` for this repository.",
            )
        self.repo = repo
        self._new: dict[ObjectName, str] = {}
        self._found: set[ObjectName] = set()
        self._since_space_check = 0
        repo.check_free_space()
        root = os.path.join(repo.path, "tmp")
        with writing(root):
            self._room = Room(root, _PREFIX)
            # Open from now on: `syncfs` reports write errors since then.
            self._fd = os.open(repo.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was not published."""
        self._room.close()
        os.close(self._fd)

    # -- collecting --------------------------------------------------------------

    def has(self, name: ObjectName) -> bool:
        """Tell whether the object need not be written."""
        if name in self._new or name in self._found:
            return True
        if self.repo.has(name):
            self._found.add(name)
            return True
        return False

    def add_metadata(self, kind: ObjectType, data: bytes) -> Checksum:
        """Write a metadata object unless it is there; return its name."""
        if len(data) > MAX_METADATA_BYTES:
            raise RepositoryError(
                f"a {kind.extension} of {len(data)} bytes is more than OSTree takes",
                hint="Split the directory; no reader would accept this one.",
            )
        name = ObjectName(checksum_of(data), kind)
        if not self.has(name):
            with self._discarding(PlainWriter(self._room.new_path())) as writer:
                writer.write(data)
                self.adopt(name, writer, size=len(data))
        return name.checksum

    @contextlib.contextmanager
    def _discarding(self, writer: ObjectWriter) -> Iterator[ObjectWriter]:
        with writing(self.repo.path):
            try:
                yield writer
            except BaseException:
                writer.discard()
                raise

    def create(
        self, header: FileHeader, size: int
    ) -> contextlib.AbstractContextManager[ObjectWriter]:
        """Start a file object; what is not adopted in the block is removed."""
        with writing(self.repo.path):
            writer = self.repo.style.create(self._room.new_path(), header, size)
        return self._discarding(writer)

    def adopt(self, name: ObjectName, writer: ObjectWriter, *, size: int) -> None:
        """Finish a file and take it for the object of that name."""
        self._since_space_check += size
        if self._since_space_check >= _SPACE_CHECK_BYTES:
            self._since_space_check = 0
            self.repo.check_free_space()
        writer.finish()
        if self.repo.config.fsync and self.repo.config.per_object_fsync:
            sync_file(writer.path)
        if self._new.setdefault(name, writer.path) != writer.path:
            # Another thread was faster.
            os.unlink(writer.path)

    def stored_size(self, name: ObjectName) -> int:
        """Return the size of the object's file, waiting or in the repository."""
        path = self._new.get(name) or self.repo.object_path(name)
        return os.lstat(path).st_size

    # -- publishing ----------------------------------------------------------------

    def publish(
        self, commit: bytes, *, detached: bytes | None, ref: RefPath | None
    ) -> Checksum | None:
        """Make the objects, then the commit, then the ref visible and durable.

        Returns:
            The commit, or None if objects that were in the repository have been
            pruned meanwhile: they are forgotten, write them and publish again.

        Raises:
            LockedError: the repository stayed locked exclusively for too long.
            ReadOnlyError, NoSpaceError, RepositoryError: as the disk says; no
                commit and no ref was written.

        """
        name = ObjectName(checksum_of(commit), ObjectType.COMMIT)
        with writing(self.repo.path):
            self._sync()
            with self.repo.lock(exclusive=False):
                vanished = {name for name in self._found if not self.repo.has(name)}
                if vanished:
                    self._found -= vanished
                    return None
                self._link_all()
                if detached is not None:
                    meta = ObjectName(name.checksum, ObjectType.COMMITMETA)
                    self._replace(meta, detached)
                if not self.repo.has(name):
                    self._replace(name, commit)
                if ref is not None:
                    self.repo.refs.set(ref, name.checksum)
                self._mark_complete(name.checksum)
        return name.checksum

    def _sync(self) -> None:
        if self.repo.config.fsync and self._new:
            syncfs(self._fd)

    def _link_all(self) -> None:
        """Move what waits to its place; durable before the commit can appear."""
        for name, path in self._new.items():
            self._move(path, name)
        self._sync()
        self._found |= self._new.keys()
        self._new.clear()

    def _move(self, path: str, name: ObjectName) -> None:
        place = self.repo.object_path(name)
        try:
            os.rename(path, place)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(place), 0o775, exist_ok=True)
            os.rename(path, place)

    def _replace(self, name: ObjectName, data: bytes) -> None:
        """Write one object that is not waiting, durable before it returns."""
        with self._discarding(PlainWriter(self._room.new_path())) as writer:
            writer.write(data)
            writer.finish()
            if self.repo.config.fsync:
                sync_file(writer.path)
            self._move(writer.path, name)
        if self.repo.config.fsync:
            sync_directory(os.path.dirname(self.repo.object_path(name)))

    def _mark_complete(self, commit: Checksum) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.repo.partial_path(commit))
