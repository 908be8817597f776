"""Delete the objects that nothing needs any more, as `ostree prune` does.

Source of the rules: libostree `ostree-repo-prune.c` and `ot-builtin-prune.c`.
Everything happens under the exclusive lock. Commits go first, so that whatever
stops it half-way, no commit is left without its objects.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2p.errors import ObjectNotFoundError, RefNotFoundError, RepositoryError
from p2p.ostree.deltas import list_deltas
from p2p.ostree.deployments import deployed_commits
from p2p.ostree.disk import sync_filesystem, write_file, writing
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirTree,
    ObjectName,
    ObjectType,
    parse_object_path,
    serialize_metadata,
)
from p2p.ostree.repo import Repo, list_objects
from p2p.ostree.walk import Closure, Limits, walk

# What libostree's prune looks at: detached metadata goes with its commit, and
# tombstones stay.
_PRUNED = frozenset(
    {
        ObjectType.FILE,
        ObjectType.DIRTREE,
        ObjectType.DIRMETA,
        ObjectType.COMMIT,
        ObjectType.PAYLOAD_LINK,
    }
)
# What is kept has been accepted before, however much it is.
_NO_LIMIT = Limits(objects=1 << 62)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """What is kept.

    Attributes:
        refs_only: keep only what refs reach; otherwise every commit is kept.
        depth: how many parents of each commit are kept; -1 for all.
        keep_younger_than: instead of `depth`, keep parents back to this time, in
            seconds since 1970; implies `refs_only`.
        delete_commits: commits to delete, which no ref may name.
        tombstones: whether each of them leaves a tombstone.
        dry_run: delete nothing, only count.

    """

    refs_only: bool = False
    depth: int = -1
    keep_younger_than: int | None = None
    delete_commits: tuple[Checksum, ...] = ()
    tombstones: bool = True
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class PruneReport:
    """How many objects there were, and how many were (or would be) deleted."""

    total: int
    pruned: int
    freed_bytes: int


Keep = Callable[[], Iterable[ObjectName]]
"""Names objects that are needed beside the commits; called under the lock."""


def prune(
    repo: Repo, options: PruneOptions | None = None, *, keep: Keep | None = None
) -> PruneReport:
    """Delete what is not needed; deployed commits always are.

    Raises:
        ObjectNotFoundError, DamagedObjectError: a commit that is kept and not marked
            partial lacks a directory, so what it needs is not known.
        RepositoryError: a commit to delete is still named by a ref.
        LockedError: the repository is being read or written for too long.

    """
    options = options or PruneOptions()
    with writing(repo.path), repo.lock(exclusive=True):
        deleted = [_deletable(repo, commit) for commit in options.delete_commits]
        leaves_tombstones = options.tombstones or repo.config.tombstone_commits
        if deleted and not options.dry_run:
            if leaves_tombstones:
                _enable_tombstones(repo)
            for commit in deleted:
                name = ObjectName(commit, ObjectType.COMMIT)
                _delete_commit(repo, name, tombstone=leaves_tombstones)
        kept = _Kept(repo, set(deleted))
        kept.choose(options)
        needed = kept.objects()
        if keep is not None:
            needed.update(keep())
        report = _sweep(
            repo,
            needed,
            tombstones=bool(deleted and options.tombstones)
            or repo.config.tombstone_commits,
            dry_run=options.dry_run,
        )
        if not options.dry_run:
            _prune_deltas(repo)
    return report


def _deletable(repo: Repo, commit: Checksum) -> Checksum:
    for ref, head in repo.refs.all():
        if head == commit:
            raise RepositoryError(f"commit {commit} is still named by the ref {ref}")
    if commit in deployed_commits(repo):
        raise RepositoryError(f"commit {commit} is deployed")
    path = repo.object_path(ObjectName(commit, ObjectType.COMMIT))
    if not os.path.exists(path):
        raise RefNotFoundError(f"{repo.path}: there is no commit {commit}")
    return commit


def _enable_tombstones(repo: Repo) -> None:
    if not repo.config.tombstone_commits:
        # The file anew, because `repo` may have been opened with other settings.
        stored = Repo.open(repo.path)
        stored.keys.set("core", "tombstone-commits", "true")
        stored.save_config()


class _Kept:
    """The commits to keep, and then what they reach."""

    def __init__(self, repo: Repo, deleted: set[Checksum]) -> None:
        self._repo = repo
        self._deleted = deleted
        self._commits: dict[Checksum, Commit] = {}
        # How far up its parents each commit was followed; -1 is all the way.
        self._followed: dict[Checksum, int] = {}

    def choose(self, options: PruneOptions) -> None:
        """Choose the commits that the options say."""
        roots = [commit for _, commit in self._repo.refs.all()]
        roots += deployed_commits(self._repo)
        oldest = options.keep_younger_than
        if oldest is not None:
            for root in roots:
                self._follow(root, 0, lambda _: True)
                self._follow(root, -1, lambda commit: commit.timestamp >= oldest)
            return
        if not options.refs_only:
            roots += [
                name.checksum
                for name in self._repo.all_objects()
                if name.type is ObjectType.COMMIT
            ]
        for root in roots:
            self._follow(root, options.depth, lambda _: True)

    def _follow(
        self, root: Checksum, depth: int, wanted: Callable[[Commit], bool]
    ) -> None:
        """Choose a commit and `depth` of its parents, as long as they are wanted."""
        following: Checksum | None = root
        left = depth
        while following is not None and not self._was_followed(following, left):
            commit = self._load(following)
            if commit is None or not wanted(commit):
                return
            self._commits[following] = commit
            self._followed[following] = left
            following = commit.parent if left else None
            left -= left > 0

    def _was_followed(self, checksum: Checksum, left: int) -> bool:
        before = self._followed.get(checksum)
        return before is not None and (before < 0 or 0 <= left <= before)

    def _load(self, checksum: Checksum) -> Commit | None:
        """Return a commit, or None where history ends: deleted or never pulled."""
        if checksum in self._deleted:
            return None
        try:
            return self._repo.load_commit(checksum)
        except ObjectNotFoundError:
            return None

    def objects(self) -> set[ObjectName]:
        """Return everything the chosen commits reach, and themselves."""
        closure = Closure(limits=_NO_LIMIT)
        partial = {c for c in self._commits if self._repo.is_partial(c)}
        # Directories that only partial commits name may be missing.
        for checksum, load in (
            *((c, self._repo.load_dirtree) for c in self._commits if c not in partial),
            *((c, self._load_if_there) for c in partial),
        ):
            start = closure.add_commit(self._commits[checksum])
            for _ in walk(closure, start, load):
                continue
        names = {ObjectName(c, ObjectType.COMMIT) for c in self._commits}
        return names | closure.named

    def _load_if_there(self, checksum: Checksum) -> DirTree:
        try:
            return self._repo.load_dirtree(checksum)
        except ObjectNotFoundError:
            return DirTree()


# -- deleting ----------------------------------------------------------------------


def _sweep(
    repo: Repo, needed: set[ObjectName], *, tombstones: bool, dry_run: bool
) -> PruneReport:
    objects = [name for name in list_objects(repo.objects) if name.type in _PRUNED]
    unneeded = [name for name in objects if not _is_needed(repo, name, needed)]
    freed = sum(os.lstat(repo.object_path(name)).st_size for name in unneeded)
    if not dry_run:
        commits = [name for name in unneeded if name.type is ObjectType.COMMIT]
        for name in commits:
            _delete_commit(repo, name, tombstone=tombstones)
        if commits and repo.config.fsync:
            # They must be gone on the disk before anything they need is.
            sync_filesystem(repo.objects)
        for name in unneeded:
            if name.type is not ObjectType.COMMIT:
                os.unlink(repo.object_path(name))
    return PruneReport(len(objects), len(unneeded), freed)


def _is_needed(repo: Repo, name: ObjectName, needed: set[ObjectName]) -> bool:
    if name.type is ObjectType.PAYLOAD_LINK:
        target = os.readlink(repo.object_path(name)).removeprefix("../")
        return parse_object_path(target) in needed
    return name in needed


def _delete_commit(repo: Repo, name: ObjectName, *, tombstone: bool) -> None:
    """Remove a commit and what is kept beside it, and leave a tombstone if asked to."""
    if tombstone:
        grave = ObjectName(name.checksum, ObjectType.TOMBSTONE_COMMIT)
        value = Variant("ay", name.checksum.encode() + b"\0")
        data = serialize_metadata((("commit", value),))
        write_file(repo.object_path(grave), data, fsync=repo.config.fsync)
    os.unlink(repo.object_path(name))
    meta = ObjectName(name.checksum, ObjectType.COMMITMETA)
    for path in (repo.object_path(meta), repo.partial_path(name.checksum)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _prune_deltas(repo: Repo) -> None:
    """Remove the static deltas to commits that are gone."""
    for delta in list(list_deltas(repo)):
        if not repo.has(ObjectName(delta.target, ObjectType.COMMIT)):
            shutil.rmtree(delta.path)
