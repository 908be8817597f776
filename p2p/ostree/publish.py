"""From the staging store into the repository, in one short step.

Two publishers with one interface. `NativePublisher` links files; it serves
repositories that are no sysroot. `LibostreePublisher` (`p2p.ostree.libostree`) has
`ostree pull-local` do it, for a sysroot and for every configuration this program does
not implement itself.
What must never be: a `.commit` or a ref that points at objects that are missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from p2p.errors import ObjectNotFoundError
from p2p.ostree.disk import sync_directory, sync_file, writing
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum, Commit, ObjectName, ObjectType
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from p2p.ostree.summary import regenerate
from p2p.ostree.walk import Closure, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCommit:
    """A verified commit; `detached` is its detached metadata, verified with it."""

    checksum: Checksum
    commit: Commit
    detached: bytes | None = None

    @property
    def name(self) -> ObjectName:
        """The name of its `.commit` object."""
        return ObjectName(self.checksum, ObjectType.COMMIT)

    @property
    def detached_name(self) -> ObjectName:
        """The name of its `.commitmeta`."""
        return ObjectName(self.checksum, ObjectType.COMMITMETA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Verified commits to make visible, oldest first, and the refs to set then."""

    commits: tuple[NewCommit, ...]
    refs: tuple[tuple[RefPath, Checksum], ...]
    metadata_only: bool = False
    fsync: bool = True


class Publisher(Protocol):
    """Makes staged commits visible in the repository."""

    def publish(self, publication: Publication) -> None:
        """Publish all or nothing that a reader could mistake for complete."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a publication has to do, as seen without the lock.

    Attributes:
        staged: objects to take from the staging store, in order.
        present: objects that are counted on to be in the repository.
        baselines: commits all of whose objects are counted on.

    """

    staged: tuple[ObjectName, ...]
    present: tuple[ObjectName, ...]
    baselines: frozenset[Checksum] = frozenset()

    @classmethod
    def of(cls, stage: Stage, publication: Publication) -> Plan:
        """Return the plan.

        Raises:
            ObjectNotFoundError: an object the commits need is neither staged nor in
                the repository.
            LimitError: a commit unfolds to more than is allowed.

        """
        target = stage.target
        complete = {c.checksum for c in publication.commits if _is_done(stage, c)}
        fresh = [c for c in publication.commits if c.checksum not in complete]
        names: set[ObjectName] = set()
        if fresh and not publication.metadata_only:
            baseline = _baseline(target, publication)
            if baseline is not None:
                complete.add(baseline)
            names = needed(stage.holdings, fresh, baseline)
        staged = {name for name in names if stage.has(name)}
        present = names - staged
        if missing := [name for name in present if not target.has(name)]:
            raise vanished(missing)
        return cls(tuple(sorted(staged)), tuple(present), frozenset(complete))

    def check_present(self, target: Repo) -> None:
        """Raise ObjectNotFoundError if something counted on was pruned meanwhile.

        A commit that is still there has its objects: prune takes it away with them.
        """
        gone = [name for name in self.present if not target.has(name)]
        gone += [
            ObjectName(checksum, ObjectType.COMMIT)
            for checksum in self.baselines
            if not is_complete(target, checksum)
        ]
        if gone:
            raise vanished(gone)


def is_complete(target: Repo, checksum: Checksum) -> bool:
    """Tell whether the repository says that it has the commit and all it needs."""
    name = ObjectName(checksum, ObjectType.COMMIT)
    return target.has(name) and not target.is_partial(checksum)


def _is_done(stage: Stage, commit: NewCommit) -> bool:
    """Tell whether a commit was published, and cleared from the store (`clear`)."""
    return is_complete(stage.target, commit.checksum) and not stage.has(commit.name)


def _baseline(target: Repo, publication: Publication) -> Checksum | None:
    """Return a complete commit that one of the refs names now, other than the new.

    That a ref names it makes sure that no prune was killed while it removed it.
    """
    new = {commit.checksum for commit in publication.commits}
    for ref, _ in publication.refs:
        current = target.refs.get(ref)
        if current is not None and current not in new and is_complete(target, current):
            return current
    return None


def needed(
    holdings: Holdings, commits: Iterable[NewCommit], baseline: Checksum | None
) -> set[ObjectName]:
    """Return the names of the objects below the commits; their directories are read.

    What a commit shares with the baseline, directory for directory, is left out.

    Raises:
        ObjectNotFoundError: a directory is missing.
        LimitError: a commit unfolds to more than is allowed.

    """
    closure = Closure(load_baseline=holdings.load_baseline)
    old = holdings.load_complete(baseline)
    for commit in commits:
        start = closure.add_commit(commit.commit, old)
        for _ in walk(closure, start, holdings.load_dirtree):
            pass
        closure.check_bounds(commit.commit)
    return closure.named


def vanished(missing: list[ObjectName]) -> ObjectNotFoundError:
    """Return the error for objects that were counted on and are not here."""
    return ObjectNotFoundError(
        f"{len(missing)} objects vanished before they could be published, "
        f"one of them is {min(missing)}",
        hint="Somebody pruned the repository meanwhile; pull again.",
    )


def clear(stage: Stage, plan: Plan, publication: Publication) -> None:
    """Remove from the store what was published; a commit after its objects."""
    stage.remove(commit.detached_name for commit in publication.commits)
    stage.remove(plan.staged)
    stage.remove(commit.name for commit in publication.commits)


class NativePublisher:
    """Links staged objects into `objects/`; see the order in `publish`."""

    def __init__(self, stage: Stage) -> None:
        """Publish from this store into its target."""
        self._stage = stage
        self._target = stage.target

    def publish(self, publication: Publication) -> None:
        """Link children, then detached metadata, then commits, then set the refs.

        Raises:
            ObjectNotFoundError: something the commits need is gone; nothing is set.
            LockedError: the repository stayed locked exclusively for too long.

        """
        plan = Plan.of(self._stage, publication)
        fsync = publication.fsync and self._stage.fsync
        if fsync:
            # What others stage after this is not durable, and not in the plan.
            self._stage.sync()
        with writing(self._target.path), self._target.lock(exclusive=False):
            plan.check_present(self._target)
            self._link(plan.staged, fsync=fsync)
            for commit in publication.commits:
                self._publish_commit(commit, publication, fsync=fsync)
            for ref, checksum in publication.refs:
                self._target.refs.set(ref, checksum)
            if publication.refs and self._target.config.update_summary:
                # libostree holds the shared lock for this too.
                regenerate(self._target)
        with writing(self._stage.repo.path):
            clear(self._stage, plan, publication)

    def _link(self, names: Iterable[ObjectName], *, fsync: bool) -> None:
        """Link these objects from the store, durable before this returns."""
        touched = set()
        for name in names:
            place = self._target.object_path(name)
            try:
                _link(self._stage.repo.object_path(name), place)
            except FileNotFoundError:
                # Another writer may have published it since.
                if not self._target.has(name):
                    raise vanished([name]) from None
            touched.add(os.path.dirname(place))
        if fsync and touched:
            for directory in sorted(touched):
                sync_directory(directory)
            sync_directory(self._target.objects)

    def _publish_commit(
        self, commit: NewCommit, publication: Publication, *, fsync: bool
    ) -> None:
        target = self._target
        if publication.metadata_only and not target.has(commit.name):
            self._mark_partial(commit.checksum, fsync=fsync)
        if commit.detached is not None:
            self._replace(commit.detached_name, commit.detached, fsync=fsync)
        self._link([commit.name], fsync=fsync)
        tombstone = ObjectName(commit.checksum, ObjectType.TOMBSTONE_COMMIT)
        with contextlib.suppress(FileNotFoundError):
            # As libostree does for a commit that is pulled again.
            os.unlink(target.object_path(tombstone))
        if not publication.metadata_only:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target.partial_path(commit.checksum))

    def _mark_partial(self, commit: Checksum, *, fsync: bool) -> None:
        path = self._target.partial_path(commit)
        os.makedirs(os.path.dirname(path), 0o775, exist_ok=True)
        with open(path, "ab"):
            pass
        if fsync:
            sync_directory(os.path.dirname(path))

    def _replace(self, name: ObjectName, data: bytes, *, fsync: bool) -> None:
        """Put these bytes in the place of what may be there already, atomically."""
        if self._target.load_commitmeta(name.checksum) == data:
            return
        place = self._target.object_path(name)
        os.makedirs(os.path.dirname(place), 0o775, exist_ok=True)
        writer = self._stage.create_plain()
        try:
            writer.write(data)
            writer.finish()
            if fsync:
                sync_file(writer.path)
            os.rename(writer.path, place)
        except BaseException:
            writer.discard()
            raise
        if fsync:
            sync_directory(os.path.dirname(place))


def _link(source: str, place: str) -> None:
    """Link one object; FileNotFoundError if the source is not there (any more)."""
    try:
        os.link(source, place, follow_symlinks=False)
    except FileExistsError:
        return
    except FileNotFoundError:
        if os.path.isdir(os.path.dirname(place)):
            raise
        os.makedirs(os.path.dirname(place), 0o775, exist_ok=True)
        _link(source, place)
