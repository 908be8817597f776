"""Where in commits an object is: the way back from a checksum to paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from p2p.ostree.objects import Checksum, Commit, DirTree, ObjectName, ObjectType

MAX_PLACES = 10_000
"""How many places are collected for one object; a hostile commit has billions."""

LoadDirTree = Callable[[Checksum], DirTree | None]
"""Returns a directory, or None if it cannot be read."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A path that a commit has."""

    commit: Checksum
    path: str


class PlaceFinder:
    """Finds the places of some objects, reading only directories that lead there."""

    def __init__(self, wanted: AbstractSet[ObjectName], load: LoadDirTree) -> None:
        """Look for these objects in directories that `load` returns."""
        self._wanted = wanted
        self._load = load
        # Whether anything wanted is below a directory; each is looked into once.
        self._leads: dict[Checksum, bool] = {}
        self._found: dict[ObjectName, list[Place]] = {name: [] for name in wanted}

    def add_commit(self, checksum: Checksum, commit: Commit) -> None:
        """Look through one commit."""
        self._note(ObjectName(checksum, ObjectType.COMMITMETA), Place(checksum, "/"))
        root = ("/", commit.root_dirtree, commit.root_dirmeta)
        self._explore(commit.root_dirtree)
        stack = [root]
        budget = MAX_PLACES
        while stack and budget:
            budget -= 1
            path, tree, meta = stack.pop()
            place = Place(checksum, path)
            self._note(ObjectName(tree, ObjectType.DIRTREE), place)
            self._note(ObjectName(meta, ObjectType.DIRMETA), place)
            directory = self._load(tree) if self._leads[tree] else None
            if directory is None:
                continue
            prefix = path.rstrip("/")
            for name, file in directory.files:
                found = ObjectName(file, ObjectType.FILE)
                self._note(found, Place(checksum, f"{prefix}/{name}"))
            stack += [
                (f"{prefix}/{name}", subtree, submeta)
                for name, subtree, submeta in reversed(directory.dirs)
                if self._is_on_the_way(subtree, submeta)
            ]

    def _note(self, name: ObjectName, place: Place) -> None:
        if name in self._wanted and len(self._found[name]) < MAX_PLACES:
            self._found[name].append(place)

    def places(self) -> dict[ObjectName, tuple[Place, ...]]:
        """Return the places found so far, none for what no commit reaches."""
        return {name: tuple(places) for name, places in self._found.items()}

    def _is_on_the_way(self, tree: Checksum, meta: Checksum) -> bool:
        return (
            self._leads[tree]
            or ObjectName(tree, ObjectType.DIRTREE) in self._wanted
            or ObjectName(meta, ObjectType.DIRMETA) in self._wanted
        )

    def _explore(self, root: Checksum) -> None:
        """Find out for every directory below root whether it leads anywhere."""
        stack = [root]
        opened: dict[Checksum, DirTree | None] = {}
        while stack:
            tree = stack[-1]
            if tree in self._leads:
                stack.pop()
                continue
            if tree not in opened:
                opened[tree] = self._load(tree)
                directory = opened[tree]
                below = directory.dirs if directory else ()
                stack += [sub for _, sub, _ in below if sub not in self._leads]
                continue
            self._leads[tree] = self._decide(opened.pop(tree))
            stack.pop()

    def _decide(self, directory: DirTree | None) -> bool:
        if directory is None:
            return False
        return any(
            ObjectName(file, ObjectType.FILE) in self._wanted
            for _, file in directory.files
        ) or any(self._is_on_the_way(tree, meta) for _, tree, meta in directory.dirs)


def find_places(
    wanted: AbstractSet[ObjectName],
    commits: Iterable[tuple[Checksum, Commit]],
    load: LoadDirTree,
) -> dict[ObjectName, tuple[Place, ...]]:
    """Return where commits have each of the wanted objects; see `MAX_PLACES`."""
    finder = PlaceFinder(wanted, load)
    for checksum, commit in commits:
        finder.add_commit(checksum, commit)
    return finder.places()
