"""Which objects a commit needs: a walk over its directories, in any order; pure.

Directories are visited once each, however often they are named, so that a few
objects that name billions of paths ("directory bomb") cost no more than they weigh.
How many paths they would unfold to is counted without unfolding them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from p2p.errors import LimitError
from p2p.ostree.objects import Checksum, Commit, DirTree, ObjectName, ObjectType

# A desktop system has some 500,000 paths, a distribution's archive a few million.
MAX_PATHS = 20_000_000
MAX_OBJECTS = 8_000_000
# PATH_MAX is 4,096 bytes: no deeper directory can be named by a path.
MAX_DEPTH = 2_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a commit may name before it is refused."""

    paths: int = MAX_PATHS
    objects: int = MAX_OBJECTS
    depth: int = MAX_DEPTH


_NOTHING = DirTree()


@dataclass(slots=True)
class Closure:
    """The objects of some commits, as far as their directories are known yet.

    A commit can be walked beside a *baseline*: an older one whose objects are all
    here. Then a directory that both have at the same path is passed over, with all
    below it: it is not named, and counts as one path.

    Attributes:
        load_baseline: reads a directory of a baseline.
        named: every object named so far, except the commits themselves.
        unread: dirtrees that were named but not given to `add_dirtree` yet.

    """

    limits: Limits = field(default_factory=Limits)
    load_baseline: Callable[[Checksum], DirTree] | None = None
    named: set[ObjectName] = field(default_factory=set)
    unread: set[Checksum] = field(default_factory=set)
    _commits: int = 0
    _children: dict[Checksum, tuple[int, tuple[Checksum, ...]]] = field(
        default_factory=dict
    )
    _beside: dict[Checksum, Checksum] = field(default_factory=dict)

    def add_commit(
        self, commit: Commit, baseline: Commit | None = None
    ) -> list[ObjectName]:
        """Return the objects that the commit itself names for the first time."""
        fresh: list[ObjectName] = []
        self._commits += 1
        if baseline is not None:
            self._beside[commit.root_dirtree] = baseline.root_dirtree
        self._name_dirtree(commit.root_dirtree, fresh)
        self._name(ObjectName(commit.root_dirmeta, ObjectType.DIRMETA), fresh)
        return fresh

    def add_dirtree(self, checksum: Checksum, tree: DirTree) -> list[ObjectName]:
        """Return the objects that this directory names for the first time.

        Raises:
            LimitError: the commit names more objects than is allowed.

        """
        self.unread.discard(checksum)
        if checksum in self._children:
            return []
        known = self._known_beside(checksum)
        files = {file for _, file in known.files}
        metas = {meta for _, _, meta in known.dirs}
        below = {name: subtree for name, subtree, _ in known.dirs}
        fresh: list[ObjectName] = []
        children = []
        for name, subtree, meta in tree.dirs:
            counterpart = below.get(name)
            if counterpart != subtree:
                if counterpart is not None:
                    self._beside.setdefault(subtree, counterpart)
                children.append(subtree)
                self._name_dirtree(subtree, fresh)
            if meta not in metas:
                self._name(ObjectName(meta, ObjectType.DIRMETA), fresh)
        for _, file in tree.files:
            if file not in files:
                self._name(ObjectName(file, ObjectType.FILE), fresh)
        entries = len(tree.files) + len(tree.dirs)
        self._children[checksum] = (entries, tuple(children))
        return fresh

    def _known_beside(self, checksum: Checksum) -> DirTree:
        """Return the directory of the baseline that stands where this one does."""
        counterpart = self._beside.get(checksum)
        if counterpart is None or self.load_baseline is None:
            return _NOTHING
        return self.load_baseline(counterpart)

    def _name_dirtree(self, checksum: Checksum, fresh: list[ObjectName]) -> None:
        name = ObjectName(checksum, ObjectType.DIRTREE)
        if name not in self.named and checksum not in self._children:
            self.unread.add(checksum)
        self._name(name, fresh)

    def _name(self, name: ObjectName, fresh: list[ObjectName]) -> None:
        if name not in self.named:
            if len(self.named) >= self.limits.objects:
                raise LimitError(
                    f"commit names more than {self.limits.objects} objects"
                )
            self.named.add(name)
            fresh.append(name)

    @property
    def is_of_one(self) -> bool:
        """Tell whether what is named is all of one commit, once its trees are read."""
        return self._commits == 1 and not self._beside and not self.unread

    def check_bounds(self, commit: Commit) -> int:
        """Return how many paths a commit unfolds to, all its directories read.

        Raises:
            LimitError: more paths, or deeper ones, than is allowed.

        """
        below: dict[Checksum, tuple[int, int]] = {}
        route = [(commit.root_dirtree, self._subtrees(commit.root_dirtree))]
        while route:
            tree, subtrees = route[-1]
            unseen = next((child for child in subtrees if child not in below), None)
            if unseen is None:
                below[tree] = self._measure(tree, below)
                route.pop()
            elif len(route) < self.limits.depth:
                route.append((unseen, self._subtrees(unseen)))
            else:
                raise self._bounds_error()
        return below[commit.root_dirtree][0]

    def _subtrees(self, tree: Checksum) -> Iterator[Checksum]:
        return iter(self._children[tree][1])

    def _measure(
        self, tree: Checksum, below: dict[Checksum, tuple[int, int]]
    ) -> tuple[int, int]:
        """Return how many paths, and how many levels, a directory unfolds to."""
        entries, subtrees = self._children[tree]
        paths = entries + sum(below[child][0] for child in subtrees)
        levels = 1 + max((below[child][1] for child in subtrees), default=0)
        if paths > self.limits.paths or levels > self.limits.depth:
            raise self._bounds_error()
        return paths, levels

    def _bounds_error(self) -> LimitError:
        return LimitError(
            f"commit unfolds to more than {self.limits.paths} paths "
            f"or {self.limits.depth} levels"
        )


def walk(
    closure: Closure,
    start: list[ObjectName],
    load_dirtree: Callable[[Checksum], DirTree],
) -> Iterator[ObjectName]:
    """Yield `start` and everything below it, reading each directory once.

    Errors of `load_dirtree` come through; the walk goes on when it is resumed only
    if the caller handled them inside `load_dirtree`.
    """
    stack = start[::-1]
    while stack:
        name = stack.pop()
        yield name
        if name.type is ObjectType.DIRTREE:
            stack += closure.add_dirtree(name.checksum, load_dirtree(name.checksum))
