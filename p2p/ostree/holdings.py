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
# A directory with more objects is not listed: it would take more memory than time.
_MOST_LISTED = 128


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


class Glimpse:
    """The directories of objects as they were when first looked into.

    What was not there then is taken to be missing, without another look at the disk:
    most of what a new repository or a large update asks for.
    """

    def __init__(self, repos: tuple[Repo, ...]) -> None:
        self._repos = [(repo, repo.config.mode is RepoMode.ARCHIVE) for repo in repos]
        self._listings: dict[str, frozenset[str] | None] = {}

    def lacks(self, name: ObjectName) -> bool:
        """Tell whether an object was in none of them; False if it may have been."""
        for repo, is_archive in self._repos:
            path = f"{repo.objects}/{name.path(archive=is_archive)}"
            directory, _, file = path.rpartition("/")
            try:
                listing = self._listings[directory]
            except KeyError:
                listing = self._listings[directory] = _list(directory)
            if listing is None or file in listing:
                return False
        return True


def _list(directory: str) -> frozenset[str] | None:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return frozenset()
    return frozenset(names) if len(names) <= _MOST_LISTED else None


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

    def glimpse(self) -> Glimpse:
        """Return what tells quickly of most objects that they are not here."""
        return Glimpse((self._stage, *self._target.lineage))

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
