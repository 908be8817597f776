"""Which objects a push may have to send, and in which order."""

from __future__ import annotations

from p2p.errors import ObjectNotFoundError
from p2p.ostree.objects import Checksum, DirTree, ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.ostree.walk import Closure, walk


class PushPlan:
    """Grows by commits; each object is named once, with the first that needs it."""

    def __init__(self, repo: Repo) -> None:
        """Plan for a local repository."""
        self._repo = repo
        self._closure = Closure()

    def add_known(self, commit: Checksum) -> None:
        """Take for given what a commit that the origin has needs.

        As far as it is here: what a directory that is not here names may be asked
        about in vain.
        """
        try:
            parsed = self._repo.load_commit(commit)
        except ObjectNotFoundError:
            return
        for _ in walk(self._closure, self._closure.add_commit(parsed), self._load_some):
            pass

    def _load_some(self, checksum: Checksum) -> DirTree:
        try:
            return self._repo.load_dirtree(checksum)
        except ObjectNotFoundError:
            return DirTree()

    def add_commit(self, commit: Checksum) -> list[list[ObjectName]]:
        """Return what a commit needs besides, in groups to be sent one by one.

        First what has no children, then directories, the deepest first. So whoever
        finds a directory at the origin finds everything below it there too.

        Raises:
            ObjectNotFoundError, DamagedObjectError: a directory is not here, or not
                whole.
            LimitError: the commit names more than any real one.

        """
        parsed = self._repo.load_commit(commit)
        below: dict[Checksum, tuple[Checksum, ...]] = {}

        def load(checksum: Checksum) -> DirTree:
            tree = self._repo.load_dirtree(checksum)
            below[checksum] = tuple(subtree for _, subtree, _ in tree.dirs)
            return tree

        names = walk(self._closure, self._closure.add_commit(parsed), load)
        leaves = [name for name in names if name.type is not ObjectType.DIRTREE]
        self._closure.check_bounds(parsed)
        return [leaves, *_by_height(below)]


def _by_height(below: dict[Checksum, tuple[Checksum, ...]]) -> list[list[ObjectName]]:
    """Return the directories grouped by how many levels are below them."""
    heights: dict[Checksum, int] = {}
    for root in below:
        stack = [root]
        while stack:
            children = [c for c in below[stack[-1]] if c in below]
            waiting = [child for child in children if child not in heights]
            if waiting:
                stack += waiting
                continue
            heights[stack.pop()] = 1 + max((heights[c] for c in children), default=-1)
    groups: list[list[ObjectName]] = [
        [] for _ in range(max(heights.values(), default=-1) + 1)
    ]
    for checksum, height in heights.items():
        groups[height].append(ObjectName(checksum, ObjectType.DIRTREE))
    return groups
