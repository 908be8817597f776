"""What of some commits is here, and what is missing: the state of one pull's objects.

One `Survey` is owned by one task. It is told what arrived and what was staged, and
says what to fetch next: directories first, because they name the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from p2p.errors import ObjectNotFoundError
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import (
    Commit,
    DirTree,
    ObjectName,
    ObjectType,
    check_metadata,
)
from p2p.ostree.walk import Closure


@dataclass(slots=True)
class Tally:
    """Objects and bytes; the bytes are as they were received or lie on disk."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one object."""
        self.objects += 1
        self.bytes += size


@dataclass(slots=True)
class Survey:
    """The objects of the commits being pulled.

    Attributes:
        local: what was here already, without what is unchanged from a baseline.
        found: the objects that `local` counts, until they are taken.
        missing_metadata, missing_content: to be fetched, in this order.
        cached: to be copied from other repositories of this machine.
        awaited: asked for, or received and not staged yet.
        awaited_directories: the directories among them.
        staged: how many objects the writer acknowledged, without copies.
        elsewhere: tells whether such a repository has an object.
        on_cached: called when there is something to copy.

    """

    holdings: Holdings
    elsewhere: Callable[[ObjectName], bool] | None = None
    on_cached: Callable[[], None] | None = None
    closure: Closure = field(init=False)
    _lacks: Callable[[ObjectName], bool] = field(init=False)
    local: Tally = field(default_factory=Tally)
    found: list[ObjectName] = field(default_factory=list)
    missing_metadata: deque[ObjectName] = field(default_factory=deque)
    missing_content: deque[ObjectName] = field(default_factory=deque)
    cached: deque[ObjectName] = field(default_factory=deque)
    awaited: set[ObjectName] = field(default_factory=set)
    awaited_directories: set[ObjectName] = field(default_factory=set)
    staged: int = 0

    def __post_init__(self) -> None:
        self.closure = Closure(load_baseline=self.holdings.load_baseline)
        self._lacks = self.holdings.glimpse().lacks

    def __repr__(self) -> str:
        missing = len(self.missing_metadata) + len(self.missing_content)
        return (
            f"<Survey {len(self.closure.named)} named, {self.local.objects} local, "
            f"{missing} missing, {len(self.awaited)} awaited, {self.staged} staged>"
        )

    @property
    def complete(self) -> bool:
        """Tell whether every object is here or staged."""
        missing = self.missing_metadata or self.missing_content
        return not (missing or self.cached or self.awaited)

    def not_here(self) -> set[ObjectName]:
        """Return the objects that are neither here nor staged."""
        return {
            *self.missing_metadata,
            *self.missing_content,
            *self.cached,
            *self.awaited,
        }

    @property
    def all_named(self) -> bool:
        """Tell whether all directories were read, so that the total is known."""
        return not self.closure.unread

    def add_commit(self, commit: Commit, baseline: Commit | None = None) -> None:
        """Find out what of this commit is here; reads the disk.

        What it shares with a complete baseline, directory for directory, is not
        looked for.
        """
        self._sort(self.closure.add_commit(commit, baseline))

    def add_dirtree(self, name: ObjectName, data: bytes) -> None:
        """Take a directory that arrived; reads the disk.

        Raises:
            IntegrityError, FormatError, LimitError: it is not what it should be.

        """
        check_metadata(name, data)
        self._sort(self.closure.add_dirtree(name.checksum, DirTree.parse(data)))

    def _sort(self, names: Iterable[ObjectName]) -> None:
        """Tell the local from the missing, going down into local directories."""
        stack = list(names)
        while stack:
            name = stack.pop()
            size = None if self._lacks(name) else self.holdings.size(name)
            if size is not None and name.type is ObjectType.DIRTREE:
                try:
                    tree = self.holdings.load_dirtree(name.checksum)
                except ObjectNotFoundError:
                    # Pruned between the two looks.
                    size = None
                else:
                    stack += self.closure.add_dirtree(name.checksum, tree)
            if size is not None:
                self.local.add(size)
                self.found.append(name)
            elif self.elsewhere is not None and self.elsewhere(name):
                self.cached.append(name)
            else:
                self.miss([name])
        if self.cached and self.on_cached is not None:
            self.on_cached()

    def miss(self, names: Iterable[ObjectName]) -> None:
        """Take note that these must be fetched."""
        for name in names:
            self._settle(name)
            if name.type is ObjectType.FILE:
                self.missing_content.append(name)
            else:
                self.missing_metadata.append(name)

    def _await(self, names: Iterable[ObjectName]) -> None:
        self.awaited.update(names)
        self.awaited_directories.update(
            name for name in names if name.type is ObjectType.DIRTREE
        )

    def _settle(self, name: ObjectName) -> None:
        self.awaited.discard(name)
        if name.type is ObjectType.DIRTREE:
            self.awaited_directories.discard(name)

    def take_found(self) -> list[ObjectName]:
        """Return what was found here since this was asked last."""
        names, self.found = self.found, []
        return names

    def take_cached(self) -> deque[ObjectName]:
        """Return all that is to be copied now; it counts as awaited."""
        names, self.cached = self.cached, deque()
        self._await(names)
        return names

    def acknowledge_copies(self, sizes: Mapping[ObjectName, int]) -> None:
        """Take note that these were copied and staged; they count as local."""
        for name, size in sizes.items():
            self._settle(name)
            self.local.add(size)

    def take(self, count: int) -> list[ObjectName]:
        """Return up to `count` objects to ask for now; they count as awaited."""
        names: list[ObjectName] = []
        for queue in (self.missing_metadata, self.missing_content):
            while queue and len(names) < count:
                names.append(queue.popleft())
        self._await(names)
        return names

    def take_all(self) -> tuple[ObjectName, ...]:
        """Return all that is missing, directories first; it counts as awaited."""
        count = len(self.missing_metadata) + len(self.missing_content)
        return tuple(self.take(count))

    def acknowledge(self, names: Iterable[ObjectName]) -> None:
        """Take note that these were staged."""
        for name in names:
            self._settle(name)
            self.staged += 1
