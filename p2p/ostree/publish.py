"""From the staging store into the repository, in one short step.

Two publishers with one interface. `NativePublisher` links files; it serves
repositories that are no sysroot. `LibostreePublisher` has `ostree pull-local` do it,
for a sysroot and for every configuration this program does not implement itself.
What must never be: a `.commit` or a ref that points at objects that are missing.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from p2p.errors import ObjectNotFoundError, RepositoryError
from p2p.ostree.config import RepoMode
from p2p.ostree.disk import sync_directory, writing
from p2p.ostree.objects import Checksum, Commit, ObjectName, ObjectType
from p2p.ostree.refs import RefPath
from p2p.ostree.stage import Stage
from p2p.ostree.walk import Closure, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Verified commits to make visible, oldest first, and the refs to set then."""

    commits: tuple[tuple[Checksum, Commit], ...]
    refs: tuple[tuple[RefPath, Checksum], ...]
    metadata_only: bool = False
    fsync: bool = True


class Publisher(Protocol):
    """Makes staged commits visible in the repository."""

    def publish(self, publication: Publication) -> None:
        """Publish all or nothing that a reader could mistake for complete."""
        ...


def publisher_for(stage: Stage) -> Publisher:
    """Return the publisher that this repository's configuration calls for."""
    target = stage.target
    if (
        target.config.unknown
        or target.config.mode is RepoMode.BARE_SPLIT_XATTRS
        or is_sysroot(target.path)
    ):
        return LibostreePublisher(stage)
    return NativePublisher(stage)


def is_sysroot(repo_path: str) -> bool:
    """Tell whether a repository is the `ostree/repo` of a bootable system."""
    ostree = os.path.dirname(os.path.realpath(repo_path))
    return os.path.basename(ostree) == "ostree" and os.path.isdir(
        os.path.join(ostree, "deploy")
    )


def missing_objects(
    stage: Stage, commits: Iterable[tuple[Checksum, Commit]]
) -> tuple[set[ObjectName], list[ObjectName]]:
    """Return what the commits name that is neither staged nor in the repository.

    Returns:
        All objects the commits name as far as they could be read, and the missing.

    """
    closure = Closure()
    missing: list[ObjectName] = []
    holdings = stage.holdings
    for _, commit in commits:
        names = walk(closure, closure.add_commit(commit), holdings.load_dirtree)
        missing += [
            name
            for name in names
            if name.type is not ObjectType.DIRTREE and not holdings.has(name)
        ]
        closure.check_bounds(commit)
    return closure.named, missing


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
        self._stage.sync()
        with writing(self._target.path), self._target.lock(exclusive=False):
            names: set[ObjectName] = set()
            if not publication.metadata_only:
                names = self._require_all(publication)
            fsync = publication.fsync and self._stage.fsync
            linked = self._link(names, fsync=fsync)
            for checksum, _ in publication.commits:
                linked += self._publish_commit(checksum, publication, fsync=fsync)
            for ref, checksum in publication.refs:
                self._target.refs.set(ref, checksum)
        with writing(self._stage.repo.path):
            self._stage.remove(linked)

    def _require_all(self, publication: Publication) -> set[ObjectName]:
        named, missing = missing_objects(self._stage, publication.commits)
        if missing:
            raise ObjectNotFoundError(
                f"{len(missing)} objects vanished before they could be published, "
                f"the first is {missing[0]}",
                hint="Somebody pruned the repository meanwhile; pull again.",
            )
        return named

    def _link(self, names: Iterable[ObjectName], *, fsync: bool) -> list[ObjectName]:
        """Link the staged ones of these objects; return them."""
        linked = []
        touched = set()
        for name in sorted(names):
            source = self._stage.repo.object_path(name)
            place = self._target.object_path(name)
            try:
                _link_object(source, place)
            except FileNotFoundError:
                # Not staged: it is in the repository, as was checked under the lock.
                continue
            linked.append(name)
            touched.add(os.path.dirname(place))
        if fsync and touched:
            for directory in sorted(touched):
                sync_directory(directory)
            sync_directory(self._target.objects)
        return linked

    def _publish_commit(
        self, checksum: Checksum, publication: Publication, *, fsync: bool
    ) -> list[ObjectName]:
        partial = self._target.partial_path(checksum)
        name = ObjectName(checksum, ObjectType.COMMIT)
        if publication.metadata_only and not self._target.has(name):
            with open(partial, "wb"):
                pass
            if fsync:
                sync_directory(os.path.dirname(partial))
        detached = ObjectName(checksum, ObjectType.COMMITMETA)
        linked = self._replace(detached)
        if fsync and linked:
            sync_directory(os.path.dirname(self._target.object_path(detached)))
        linked += self._link([name], fsync=fsync)
        if not publication.metadata_only and os.path.exists(partial):
            os.unlink(partial)
        return linked

    def _replace(self, name: ObjectName) -> list[ObjectName]:
        """Put a staged file in the place of one that may be there already."""
        source = self._stage.repo.object_path(name)
        place = self._target.object_path(name)
        if not os.path.exists(source):
            return []
        beside = f"{place}.{os.getpid()}"
        _link_object(source, beside)
        os.rename(beside, place)
        return [name]


def _link_object(source: str, place: str) -> None:
    try:
        os.link(source, place, follow_symlinks=False)
    except FileExistsError:
        return
    except FileNotFoundError:
        if not os.path.lexists(source):
            raise
        os.makedirs(os.path.dirname(place), 0o775, exist_ok=True)
        _link_object(source, place)


class LibostreePublisher:
    """Has `ostree pull-local` import the commits; it verifies every object again."""

    def __init__(self, stage: Stage, *, command: str = "ostree") -> None:
        """Publish from this store into its target with that program."""
        self._stage = stage
        self._command = command

    def publish(self, publication: Publication) -> None:
        """Import each ref's commit; other commits first, without a ref.

        Raises:
            RepositoryError: `ostree` is missing or refused, with what it said.

        """
        self._stage.sync()
        wanted = {checksum for _, checksum in publication.refs}
        for checksum, _ in publication.commits:
            if checksum not in wanted:
                self._pull_local([checksum], publication)
        for ref, checksum in publication.refs:
            self._publish_ref(ref, checksum, publication)
        self._clear(publication)

    def _publish_ref(
        self, ref: RefPath, checksum: Checksum, publication: Publication
    ) -> None:
        kind, _, rest = ref.partition("/")
        if kind == "remotes":
            remote, _, branch = rest.partition("/")
            extra = [f"--remote={remote}"]
        elif kind == "heads":
            branch, extra = rest, []
        else:
            raise RepositoryError(
                f"ref {ref}: mirrored collection-refs cannot be set through ostree"
            )
        branch_ref = RefPath(f"heads/{branch}")
        self._stage.repo.refs.set(branch_ref, checksum)
        try:
            self._pull_local([branch], publication, extra)
        finally:
            self._stage.repo.refs.delete(branch_ref)

    def _pull_local(
        self, refs: list[str], publication: Publication, extra: Iterable[str] = ()
    ) -> None:
        command = [
            self._command,
            "pull-local",
            "--untrusted",
            f"--repo={self._stage.target.path}",
            *extra,
            *(["--commit-metadata-only"] if publication.metadata_only else []),
            *([] if publication.fsync else ["--disable-fsync"]),
            self._stage.repo.path,
            *refs,
        ]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, env=_environment()
            )
        except FileNotFoundError:
            raise RepositoryError(
                f"this repository is written by libostree, but `{self._command}` "
                "is not installed",
                hint="Install the package ostree.",
            ) from None
        if result.returncode:
            raise RepositoryError(
                f"ostree pull-local into {self._stage.target.path} failed: "
                f"{result.stderr.strip() or f'exit status {result.returncode}'}"
            )

    def _clear(self, publication: Publication) -> None:
        """Remove from the store what is in the repository now."""
        target = self._stage.target
        names = [name for name in self._stage.repo.all_objects() if target.has(name)]
        commits = {checksum for checksum, _ in publication.commits}
        names += [ObjectName(checksum, ObjectType.COMMITMETA) for checksum in commits]
        self._stage.remove(names)


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8"}
