"""What a TreeHub server keeps: a repository a namespace, and the rules for its refs.

Every namespace is an archive repository of its own, so that stock `ostree`, nginx and
anything else can serve and check it: the store's directory itself is the namespace
`default`, the others are below its `namespaces/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterator

import trio

from p2p.errors import (
    ConfigError,
    DamagedObjectError,
    FormatError,
    ObjectNotFoundError,
    RepositoryError,
)
from p2p.ostree.config import RepoMode
from p2p.ostree.disk import write_file, writing
from p2p.ostree.objects import Checksum, ObjectName, ObjectType, parse_metadata
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from p2p.web.treehub.arrival import DEFAULT_MAX_CONTENT_BYTES
from p2p.web.treehub.completeness import commits_between, find_missing
from p2p.web.treehub.detached import merge_detached
from p2p.web.treehub.ingest import Ingest

DEFAULT_NAMESPACE = "default"
_NAMESPACE = re.compile(r"[A-Za-z0-9_][-._A-Za-z0-9]{0,127}")
# Anybody who may upload may name a new namespace.
MAX_NAMESPACES = 1000


class UnknownCommitError(RepositoryError):
    """A ref is to name a commit that is not here."""


class IncompleteCommitError(RepositoryError):
    """A ref is to name a commit some of whose objects are not here."""


class NotFastForwardError(RepositoryError):
    """A ref is to leave the history it is in."""


class Store:
    """One namespace: objects, refs and manifests of one repository."""

    def __init__(self, repo: Repo, *, max_content_bytes: int) -> None:
        """Take over an archive repository; see `Stores.open`."""
        self.repo = repo
        self.ingest = Ingest(repo, max_content_bytes=max_content_bytes)
        self._refs = trio.Lock()
        self._detached = trio.Lock()

    async def put(
        self, name: ObjectName, body: AsyncIterator[bytes], length: int | None
    ) -> bool:
        """Take an object; tell whether it is new. As `Ingest.put`."""
        if await self.ingest.put(name, body, length):
            return True
        if name.type is ObjectType.COMMIT:
            await trio.to_thread.run_sync(self._clear_partial, name.checksum)
        return False

    async def has(self, name: ObjectName) -> bool:
        """Tell whether an object is here; a commit only counts with all it needs.

        Tools that push take a commit that is here for a finished push.
        """
        if not await self.ingest.has(name):
            return False
        if name.type is not ObjectType.COMMIT:
            return True
        return not self.repo.is_partial(name.checksum)

    def _clear_partial(self, commit: Checksum) -> None:
        """Forget that a commit lacked something, if it does not any more."""
        if self.repo.is_partial(commit):
            with self.repo.lock(exclusive=False):
                if not find_missing(self.repo, self.repo.load_commit(commit)):
                    self._mark_complete(commit)

    def _mark_complete(self, commit: Checksum) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.repo.partial_path(commit))

    # -- detached metadata -----------------------------------------------------

    async def put_detached(self, commit: Checksum, data: bytes) -> bool:
        """Add detached metadata to what is there; tell whether it added anything.

        Raises:
            FormatError, LimitError: it is none, or would become too large.

        """
        async with self._detached:
            return await trio.to_thread.run_sync(self._put_detached, commit, data)

    def _put_detached(self, commit: Checksum, data: bytes) -> bool:
        path = self.repo.object_path(ObjectName(commit, ObjectType.COMMITMETA))
        mine = self.repo.load_commitmeta(commit)
        if mine is not None:
            with _blaming(path):
                parse_metadata(mine)
        merged = merge_detached(mine, data)
        if merged == mine:
            return False
        with writing(self.repo.path), self.repo.lock(exclusive=False):
            self.repo.check_free_space(len(merged))
            os.makedirs(os.path.dirname(path), 0o775, exist_ok=True)
            write_file(path, merged, fsync=self.repo.config.fsync)
        return True

    # -- refs ------------------------------------------------------------------

    def get_ref(self, ref: RefPath) -> Checksum | None:
        """Return the commit a ref names; DamagedObjectError if its file is damaged."""
        with _blaming(f"{self.repo.path}/refs/{ref}"):
            return self.repo.refs.get(ref)

    async def set_ref(self, ref: RefPath, commit: Checksum, *, force: bool) -> None:
        """Let a ref name a commit, which must be complete and follow the present one.

        Args:
            ref: what to set.
            commit: its new value.
            force: leave the ref's history; complete it must be all the same.

        Raises:
            UnknownCommitError, IncompleteCommitError, NotFastForwardError: it is not.
            LimitError: the commit names more than any real one.

        """
        async with self._refs:
            await trio.to_thread.run_sync(self._set_ref, ref, commit, force)

    def _set_ref(self, ref: RefPath, commit: Checksum, force: bool) -> None:  # noqa: FBT001 - run_sync passes no keywords
        repo = self.repo
        with writing(repo.path), repo.lock(exclusive=False):
            try:
                parsed = repo.load_commit(commit)
            except ObjectNotFoundError:
                raise UnknownCommitError(f"commit {commit} is not here") from None
            old = self.get_ref(ref)
            if not force and old is not None:
                self._check_fast_forward(ref, old, commit)
            missing = find_missing(repo, parsed)
            if missing:
                raise IncompleteCommitError(f"commit {commit} lacks {missing}")
            self._mark_complete(commit)
            if old != commit:
                repo.refs.set(ref, commit)

    def _check_fast_forward(self, ref: RefPath, old: Checksum, new: Checksum) -> None:
        if commits_between(self.repo, old, new) is None:
            raise NotFastForwardError(
                f"{ref} is at {old}, which is not among the ancestors of {new}"
            )

    # -- manifests ---------------------------------------------------------------

    async def put_manifest(self, commit: Checksum, data: bytes) -> None:
        """Keep a commit's manifest, replacing one that is there.

        Raises:
            FormatError: it is no JSON object.
            UnknownCommitError: the commit is not here.

        """
        try:
            if not isinstance(json.loads(data), dict):
                raise FormatError("the manifest is no JSON object")
        except (ValueError, RecursionError) as error:
            raise FormatError(f"the manifest is no JSON: {error}") from None
        if not await self.ingest.has(ObjectName(commit, ObjectType.COMMIT)):
            raise UnknownCommitError(f"commit {commit} is not here")
        await trio.to_thread.run_sync(self._put_manifest, commit, data)

    def _put_manifest(self, commit: Checksum, data: bytes) -> None:
        directory = os.path.join(self.repo.path, "extensions", "p2p", "manifests")
        with writing(directory):
            self.repo.check_free_space(len(data))
            os.makedirs(directory, 0o775, exist_ok=True)
            path = os.path.join(directory, f"{commit}.json")
            write_file(path, data, fsync=self.repo.config.fsync)


class Stores:
    """All namespaces below one directory."""

    def __init__(
        self, directory: str, *, max_content_bytes: int = DEFAULT_MAX_CONTENT_BYTES
    ) -> None:
        """Open or make the default namespace.

        Args:
            directory: the store.
            max_content_bytes: how large a file may be when inflated.

        Raises:
            ConfigError: there is a repository of another kind.
            ReadOnlyError, NoSpaceError, RepositoryError: as the disk says.

        """
        self._directory = os.path.abspath(directory)
        self._nursery: trio.Nursery | None = None
        self._max_content_bytes = max_content_bytes
        self._stores: dict[str, Store] = {}
        self.default = self._open(DEFAULT_NAMESPACE)

    async def run(self) -> None:
        """Make durable what comes into any namespace, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for store in self._stores.values():
                nursery.start_soon(store.ingest.run)

    def close(self) -> None:
        """Remove what is unfinished."""
        for store in self._stores.values():
            store.ingest.close()

    def get(self, namespace: str, *, create: bool) -> Store | None:
        """Return a namespace's store; None if there is none and none is wanted.

        Raises:
            FormatError: the name cannot be one.
            RepositoryError: there are too many, or as the disk says.

        """
        store = self._stores.get(namespace)
        if store is not None:
            return store
        if not _NAMESPACE.fullmatch(namespace):
            raise FormatError(f"not a namespace: {namespace[:80]!r}")
        if not os.path.exists(os.path.join(self._path(namespace), "config")):
            if not create:
                return None
            self._check_number()
        return self._open(namespace)

    def _check_number(self) -> None:
        with writing(self._directory):
            root = os.path.join(self._directory, "namespaces")
            os.makedirs(root, 0o775, exist_ok=True)
            if len(os.listdir(root)) >= MAX_NAMESPACES:
                raise RepositoryError(f"{root}: {MAX_NAMESPACES} namespaces are enough")

    def _path(self, namespace: str) -> str:
        if namespace == DEFAULT_NAMESPACE:
            return self._directory
        return os.path.join(self._directory, "namespaces", namespace)

    def _open(self, namespace: str) -> Store:
        path = self._path(namespace)
        with writing(path):
            os.makedirs(path, 0o775, exist_ok=True)
        repo = Repo.init(path, RepoMode.ARCHIVE)
        _check_config(repo)
        store = Store(repo, max_content_bytes=self._max_content_bytes)
        self._stores[namespace] = store
        if self._nursery is not None:
            self._nursery.start_soon(store.ingest.run)
        return store


@contextlib.contextmanager
def _blaming(path: str) -> Iterator[None]:
    """Turn errors about a file's content into errors about the file."""
    try:
        yield
    except FormatError as error:
        raise DamagedObjectError(
            f"{path}: damaged: {error}", hint="Restore this file, or remove it."
        ) from error


def _check_config(repo: Repo) -> None:
    """Refuse settings that would have to be obeyed when objects or refs are written."""
    config = repo.config
    unknown = config.unknown + (
        ("core.auto-update-summary",) if config.update_summary else ()
    )
    unknown += ("core.parent",) if config.parent else ()
    if unknown:
        raise ConfigError(
            f"{repo.path}/config: {unknown[0]}",
            "is not kept up by this server",
            hint="Remove the setting, or give another directory as --store.",
        )
