"""Old commits that are kept for neighbours, within a quota: refs below `p2p/keep/`.

A commit counts with the objects that only such refs reach. The oldest go first, by when
they were kept; what another ref names, or what is deployed, is never deleted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from p2p.errors import ObjectNotFoundError
from p2p.ostree.deployments import deployed_commits
from p2p.ostree.disk import writing
from p2p.ostree.objects import Checksum, DirTree, ObjectName, ObjectType
from p2p.ostree.prune import PruneOptions, prune
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from p2p.ostree.walk import Closure, Limits, walk

PREFIX: Final = "heads/p2p/keep/"
MAX_KEPT: Final = 8
"""Each costs neighbours and us memory, for the names of its objects."""
_NO_LIMIT = Limits(objects=1 << 62)


@dataclass(frozen=True, slots=True)
class Kept:
    """A commit that is kept, the remote it came from, and the ref that says so."""

    ref: RefPath
    remote: str
    commit: Checksum


def kept_commits(repo: Repo) -> list[Kept]:
    """Return what is kept, the oldest first; a ref deleted meanwhile does not count."""
    found = []
    for ref, commit in repo.refs.all(PREFIX):
        remote, _, name = ref.removeprefix(PREFIX).partition("/")
        if name == commit:
            with contextlib.suppress(FileNotFoundError):
                since = os.stat(os.path.join(repo.path, "refs", ref)).st_mtime_ns
                found.append((since, Kept(ref, remote, commit)))
    return [kept for _, kept in sorted(found, key=lambda pair: pair[0])]


def keep_commit(repo: Repo, remote: str, commit: Checksum) -> None:
    """Keep a commit that is complete here; one that is not is left alone."""
    with writing(repo.path), repo.lock(exclusive=False):
        name = ObjectName(commit, ObjectType.COMMIT)
        if repo.has(name) and not repo.is_partial(commit):
            repo.refs.set(RefPath(f"{PREFIX}{remote}/{commit}"), commit)


def trim(repo: Repo, max_bytes: int) -> tuple[Checksum, ...]:
    """Let the oldest go until the rest fits, and delete what only they needed.

    Raises:
        ObjectNotFoundError, DamagedObjectError: what a commit needs is not known.
        LockedError: the repository is being read or written for too long.

    """
    going = _too_much(repo, kept_commits(repo), max_bytes)
    if not going:
        return ()
    with writing(repo.path), repo.lock(exclusive=True):
        for kept in going:
            repo.refs.delete(kept.ref)
    needed = {commit for _, commit in repo.refs.all()} | deployed_commits(repo)
    lost = tuple(kept.commit for kept in going if kept.commit not in needed)
    if lost:
        prune(repo, PruneOptions(delete_commits=lost, tombstones=False))
    return lost


def _too_much(repo: Repo, kept: list[Kept], max_bytes: int) -> list[Kept]:
    """Return what is to go, so that what stays fits."""
    if not kept or not max_bytes:
        return kept
    others = [ref for ref in repo.refs.all() if not ref[0].startswith(PREFIX)]
    needed = _reach(repo, {commit for _, commit in others} | deployed_commits(repo))
    left = max_bytes
    staying = 0
    for each in reversed(kept[-MAX_KEPT:]):
        objects = _reach(repo, [each.commit]) - needed
        left -= sum(map(repo.disk_size, objects))
        if left < 0:
            break
        needed |= objects
        staying += 1
    return kept[: len(kept) - staying]


def _reach(repo: Repo, commits: Iterable[Checksum]) -> set[ObjectName]:
    """Return the objects of commits, as far as they are here, and themselves."""
    closure = Closure(limits=_NO_LIMIT)
    names = set()

    def load(checksum: Checksum) -> DirTree:
        try:
            return repo.load_dirtree(checksum)
        except ObjectNotFoundError:
            return DirTree()

    for checksum in commits:
        name = ObjectName(checksum, ObjectType.COMMIT)
        if not repo.has(name):
            continue
        names.add(name)
        for _ in walk(closure, closure.add_commit(repo.load_commit(checksum)), load):
            continue
    return names | closure.named
