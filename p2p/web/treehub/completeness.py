"""Whether a repository holds all that a commit needs, and its way from another."""

from __future__ import annotations

from dataclasses import dataclass

from p2p.errors import ObjectNotFoundError
from p2p.ostree.objects import Checksum, Commit, DirTree, ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.ostree.walk import Closure, walk

_SHOWN = 5
# A branch that gets a commit an hour has this many in a year.
MAX_ANCESTORS = 10_000


@dataclass(slots=True)
class Missing:
    """What a commit lacks: how many objects, and the first few of them.

    What only a missing directory would name is not counted: nobody knows it.
    """

    count: int = 0
    first: tuple[ObjectName, ...] = ()

    def add(self, name: ObjectName) -> None:
        """Count an object."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first += (name,)

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.first) else ""
        return f"{self.count} objects: {', '.join(map(str, self.first))}{more}"


def find_missing(repo: Repo, commit: Commit) -> Missing:
    """Return what a commit lacks besides itself.

    Raises:
        LimitError: it names more objects or paths than any real tree.
        DamagedObjectError: a directory on the way is damaged.

    """
    missing = Missing()

    def load(checksum: Checksum) -> DirTree:
        try:
            return repo.load_dirtree(checksum)
        except ObjectNotFoundError:
            missing.add(ObjectName(checksum, ObjectType.DIRTREE))
            return DirTree()

    closure = Closure()
    for name in walk(closure, closure.add_commit(commit), load):
        if name.type is not ObjectType.DIRTREE and not repo.has(name):
            missing.add(name)
    closure.check_bounds(commit)
    return missing


def commits_between(
    repo: Repo, old: Checksum, new: Checksum
) -> tuple[Checksum, ...] | None:
    """Return the commits after `old` up to `new`, oldest first.

    None if `old` is not among the ancestors of `new`, as far as they are here.
    """
    found = [new]
    for _ in range(MAX_ANCESTORS):
        if found[-1] == old:
            return tuple(found[-2::-1])
        try:
            parent = repo.load_commit(found[-1]).parent
        except ObjectNotFoundError:
            return None
        if parent is None:
            return None
        found.append(parent)
    return None
