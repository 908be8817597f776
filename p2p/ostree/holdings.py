"""What a repository and its staging store hold together, for reading only."""

from __future__ import annotations

import os
from dataclasses import replace

from p2p.errors import DamagedObjectError, ObjectNotFoundError
from p2p.ostree.config import RepoMode
from p2p.ostree.content import ContentReader
from p2p.ostree.disk import exists
from p2p.ostree.objects import Checksum, Commit, DirTree, ObjectName, ObjectType
from p2p.ostree.repo import Repo

STAGE_PATH = "extensions/p2p/stage"


def store_mode(target: RepoMode) -> RepoMode:
    """Return the mode of the staging store of a repository of that mode."""
    # Only libostree writes that mode, and it can take objects from this one.
    return RepoMode.BARE_USER if target is RepoMode.BARE_SPLIT_XATTRS else target


def open_store(target: Repo) -> Repo:
    """Return the staging store of a repository, which a writer has made.

    Raises:
        ConfigError: there is none.

    """
    store = Repo.open(os.path.join(target.path, STAGE_PATH))
    store.style = replace(target.style, mode=store.config.mode)
    return store


class Holdings:
    """Looks in the staging store first, then in the repository.

    In that order, because objects move from the store into the repository.
    """

    def __init__(self, stage: Repo, target: Repo) -> None:
        """Read from both; `of` finds the store of a repository."""
        self._stage = stage
        self._target = target

    @classmethod
    def of(cls, target: Repo) -> Holdings:
        """Return the holdings of a repository whose store a writer has open."""
        return cls(open_store(target), target)

    @classmethod
    def published(cls, target: Repo) -> Holdings:
        """Return the holdings of a repository without what is staged."""
        return cls(target, target)

    @property
    def repo(self) -> Repo:
        """The repository itself."""
        return self._target

    def size(self, name: ObjectName) -> int | None:
        """Return how many bytes the object takes on disk, or None if it is not here."""
        for repo in (self._stage, self._target):
            try:
                return os.lstat(repo.object_path(name)).st_size
            except FileNotFoundError:
                continue
        # A parent repository is looked into by `has` only.
        is_parental = self._target.config.parent is not None
        return 0 if is_parental and self._target.has(name) else None

    def has(self, name: ObjectName) -> bool:
        """Tell whether the object is staged or in the repository."""
        return exists(self._stage.object_path(name)) or self._target.has(name)

    def load_metadata(self, name: ObjectName) -> bytes:
        """Return a metadata object; errors as `Repo.load_metadata`."""
        try:
            return self._stage.load_metadata(name)
        except ObjectNotFoundError:
            return self._target.load_metadata(name)

    def load_dirtree(self, checksum: Checksum) -> DirTree:
        """Return a directory; errors as `Repo.load_metadata`."""
        name = ObjectName(checksum, ObjectType.DIRTREE)
        return DirTree.parse(self.load_metadata(name))

    def load_baseline(self, checksum: Checksum) -> DirTree:
        """Return a directory that is thought to be here; an empty one if it is not.

        Then nothing is known of it, and everything below is looked for.
        """
        try:
            return self.load_dirtree(checksum)
        except (ObjectNotFoundError, DamagedObjectError):
            return DirTree()

    def load_complete(self, checksum: Checksum | None) -> Commit | None:
        """Return a commit if the repository says that it has all of it, else None."""
        if checksum is None or self._target.is_partial(checksum):
            return None
        try:
            return self._target.load_commit(checksum)
        except (ObjectNotFoundError, DamagedObjectError):
            return None

    def load_commitmeta(self, commit: Checksum) -> bytes | None:
        """Return a commit's detached metadata, newly staged or published, or None."""
        staged = self._stage.load_commitmeta(commit)
        return self._target.load_commitmeta(commit) if staged is None else staged

    def open_content(self, checksum: Checksum) -> ContentReader:
        """Open a file object; errors as `Repo.open_content`."""
        try:
            return self._stage.open_content(checksum)
        except ObjectNotFoundError:
            return self._target.open_content(checksum)
