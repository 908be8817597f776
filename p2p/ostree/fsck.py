"""Check a repository: every object recomputed, every commit followed to its leaves.

Unlike `ostree fsck` it also recomputes objects that no commit reaches, and names
each damaged object by the paths it has in commits and deployments.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from p2p.errors import DamagedObjectError, FormatError, ObjectNotFoundError
from p2p.ostree.check import Finding, Verdict, check_object
from p2p.ostree.deployments import deployed_files
from p2p.ostree.disk import sync_filesystem, write_file, writing
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirTree,
    ObjectName,
    ObjectType,
)
from p2p.ostree.places import Place, find_places
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from p2p.ostree.walk import Closure, Limits, walk

_OBJECTS_A_JOB = 128
_MAX_THREADS = 8
# What is in the repository was accepted before, however much it is.
_NO_LIMIT = Limits(objects=1 << 62)
# Content of a `.commitpartial` that fsck wrote (libostree `ostree-repo-commit.c`,
# ostree_repo_mark_commit_partial_reason).
_FSCK_PARTIAL = b"f"

Progress = Callable[[int, int], None]
"""Called with how many objects are checked, and how many there are."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that is missing or not what it should be.

    Attributes:
        reason: what is wrong with it.
        places: the paths that commits have it at; empty where none reaches it.
        deployed: files of deployments that are the same inode.

    """

    name: ObjectName
    verdict: Verdict
    reason: str
    places: tuple[Place, ...] = ()
    deployed: tuple[str, ...] = ()

    @property
    def commits(self) -> tuple[Checksum, ...]:
        """The commits that need it."""
        return tuple(dict.fromkeys(place.commit for place in self.places))


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckReport:
    """What a check found.

    Attributes:
        objects: how many were recomputed.
        commits: how many complete commits were followed.
        partial: commits that are not complete, which is no error.
        problems: what is wrong with objects.
        dangling: refs whose commit is not there.
        unbound: refs whose commit was made for other refs; no error by itself.
        fetch: objects that `repair` removed or that are missing, to be fetched again.

    """

    objects: int
    commits: int
    partial: tuple[Checksum, ...] = ()
    problems: tuple[Problem, ...] = ()
    dangling: tuple[tuple[RefPath, Checksum], ...] = ()
    unbound: tuple[RefPath, ...] = ()
    fetch: tuple[ObjectName, ...] = ()

    @property
    def ok(self) -> bool:
        """Tell whether `ostree fsck` would end with 0 as well."""
        return not self.problems and not self.dangling


def fsck(
    repo: Repo, *, repair: bool = False, progress: Progress | None = None
) -> FsckReport:
    """Check everything in a repository; nothing is changed unless `repair`.

    Args:
        repo: the repository; objects of its parent repository are not recomputed.
        repair: remove damaged objects (their inodes are never written to, they may be
            files of a running system) and mark the commits that need them, or
            need missing ones, as partial, so that a pull completes them.
        progress: told how far it is.

    Raises:
        FormatError: a ref is damaged.
        LockedError, ReadOnlyError: a repair could not write.

    """
    return _Fsck(repo, progress or (lambda _done, _total: None)).run(repair=repair)


class _Fsck:
    def __init__(self, repo: Repo, progress: Progress) -> None:
        self._repo = repo
        self._progress = progress
        self._commits: dict[Checksum, Commit] = {}
        self._partial: set[Checksum] = set()

    def run(self, *, repair: bool) -> FsckReport:
        names = list(self._repo.all_objects())
        findings = list(self._check_all(names))
        broken = {finding.name for finding in findings}
        self._load_commits(name for name in names if name not in broken)
        missing = self._missing()
        problems = self._locate([*findings, *missing])
        dangling = tuple(
            (ref, commit)
            for ref, commit in self._repo.refs.all()
            if not self._repo.has(ObjectName(commit, ObjectType.COMMIT))
        )
        fetch = _repair(self._repo, problems) if repair else ()
        return FsckReport(
            objects=len(names),
            commits=len(self._commits) - len(self._partial),
            partial=tuple(sorted(self._partial)),
            problems=problems,
            dangling=dangling,
            unbound=tuple(self._unbound()),
            fetch=fetch,
        )

    # -- objects ---------------------------------------------------------------------

    def _check_all(self, names: list[ObjectName]) -> Iterator[Finding]:
        """Recompute objects in threads; yield what is wrong."""
        total = len(names)
        jobs = [names[i : i + _OBJECTS_A_JOB] for i in range(0, total, _OBJECTS_A_JOB)]
        done = 0
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
            for findings in pool.map(self._check_some, jobs):
                done = min(done + _OBJECTS_A_JOB, total)
                self._progress(done, total)
                yield from findings

    def _check_some(self, names: list[ObjectName]) -> list[Finding]:
        findings = (check_object(self._repo, name) for name in names)
        return [finding for finding in findings if finding is not None]

    # -- commits ---------------------------------------------------------------------

    def _load_commits(self, names: Iterable[ObjectName]) -> None:
        for name in names:
            if name.type is ObjectType.COMMIT:
                with contextlib.suppress(ObjectNotFoundError):
                    self._commits[name.checksum] = self._repo.load_commit(name.checksum)
                    if self._repo.is_partial(name.checksum):
                        self._partial.add(name.checksum)

    def _load_dirtree(self, checksum: Checksum) -> DirTree | None:
        try:
            return self._repo.load_dirtree(checksum)
        except (ObjectNotFoundError, DamagedObjectError, FormatError):
            # Each of these is a finding of its own already.
            return None

    def _missing(self) -> Iterator[Finding]:
        """Yield what complete commits name and is not there."""
        closure = Closure(limits=_NO_LIMIT)

        def load(checksum: Checksum) -> DirTree:
            return self._load_dirtree(checksum) or DirTree()

        for checksum, commit in self._commits.items():
            if checksum in self._partial:
                continue
            for name in walk(closure, closure.add_commit(commit), load):
                if not self._repo.has(name):
                    yield Finding(name, Verdict.MISSING, "is missing")

    def _locate(self, findings: list[Finding]) -> tuple[Problem, ...]:
        if not findings:
            return ()
        wanted = {finding.name for finding in findings}
        places = find_places(wanted, self._commits.items(), self._load_dirtree)
        for name in wanted:
            if name.type is ObjectType.COMMIT:
                places[name] = (Place(name.checksum, "/"),)
        return tuple(
            Problem(
                finding.name,
                finding.verdict,
                finding.reason,
                places[finding.name],
                tuple(deployed_files(self._repo, finding.name, places[finding.name])),
            )
            for finding in sorted(findings)
        )

    def _unbound(self) -> Iterator[RefPath]:
        """Yield the branches whose commit says that it was made for others."""
        for ref, checksum in self._repo.refs.all("heads/"):
            name = ref.removeprefix("heads/")
            # These are the sysroot's and our own names for other refs' commits.
            internal = name.startswith(("ostree/", "p2p/"))
            commit = self._commits.get(checksum)
            if commit and not internal and not self._is_bound(commit, name):
                yield ref

    def _is_bound(self, commit: Commit, ref: str) -> bool:
        refs = commit.get("ostree.ref-binding", "as")
        collection = commit.get("ostree.collection-binding", "s")
        own = self._repo.config.collection_id
        return (refs is None or ref in refs) and (
            collection is None or own is None or collection == own
        )


# -- repair --------------------------------------------------------------------------


def _repair(repo: Repo, problems: Iterable[Problem]) -> tuple[ObjectName, ...]:
    """Mark commits partial, then remove damaged objects; return what is to fetch."""
    curable = [p for p in problems if p.verdict in (Verdict.DAMAGED, Verdict.MISSING)]
    if not curable:
        return ()
    with writing(repo.path), repo.lock(exclusive=True):
        for commit in {commit for problem in curable for commit in problem.commits}:
            write_file(
                repo.partial_path(commit), _FSCK_PARTIAL, fsync=repo.config.fsync
            )
        for problem in curable:
            if problem.verdict is Verdict.DAMAGED:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(repo.object_path(problem.name))
        if repo.config.fsync:
            sync_filesystem(repo.objects)
    return tuple(problem.name for problem in curable if problem.places)
