"""What neighbours may ask for: the objects that shared commits reach, no others.

Answering for anything else would tell a stranger what is installed here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import (
    Checksum,
    Commit,
    ObjectName,
    ObjectType,
)
from p2p.ostree.walk import Closure, walk
from p2p.swarm.giving import Giving
from p2p.wire import messages as m
from p2p.wire.bitmap import sort_closure
from p2p.wire.limits import MAX_HELD_COMMITS, MAX_HELD_REFS, MAX_REF_BYTES

# Pulls that failed leave what is worth sharing; one branch after the other may fail.
MAX_UNFINISHED = 4

_UNFINISHED = {m.Held.BEGUN, m.Held.PARTIAL}


@dataclass(slots=True)
class SharedCommit:
    """One commit that neighbours may have.

    Attributes:
        held: how much of it is here.
        closure: its objects, sorted as the protocol numbers them; empty while some
            directory is still missing.
        here: which of them are here, while not all are.

    """

    checksum: Checksum
    held: m.Held
    closure: list[ObjectName] = field(default_factory=list)
    index: dict[ObjectName, int] = field(default_factory=dict)
    here: set[int] = field(default_factory=set)


def load_complete(holdings: Holdings, checksum: Checksum) -> SharedCommit:
    """Read the closure of a commit whose directories are all here.

    Blocks on the disk; errors as `Holdings.load_metadata`.
    """
    data = holdings.load_metadata(ObjectName(checksum, ObjectType.COMMIT))
    closure = Closure()
    first = closure.add_commit(Commit.parse(data))
    names = list(walk(closure, first, holdings.load_dirtree))
    return SharedCommit(checksum, m.Held.COMPLETE, sort_closure(names))


class Sharing:
    """The shared commits and refs of this device."""

    def __init__(self, holdings: Holdings) -> None:
        """Share nothing yet."""
        self.giving = Giving()
        self._holdings = holdings
        self._commits: dict[Checksum, SharedCommit] = {}
        self._refs: dict[tuple[str, str], Checksum] = {}
        self._former: dict[tuple[str, str], Checksum] = {}
        self._names: dict[m.Prefix, ObjectName] = {}
        self._on_change: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Sharing {len(self._commits)} commits, {len(self._names)} objects>"

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever what is shared changes at commit grain."""
        self._on_change.append(changed)

    def _changed(self) -> None:
        for changed in self._on_change:
            changed()

    # -- what is shared --------------------------------------------------------

    def load_complete(self, checksum: Checksum) -> SharedCommit:
        """Read a complete commit; see the function of that name."""
        return load_complete(self._holdings, checksum)

    def begin(self, checksum: Checksum) -> None:
        """Share what comes of a commit that is being pulled."""
        if checksum in self._commits:
            return
        unfinished = [c.checksum for c in self.commits() if c.held in _UNFINISHED]
        self._forget(unfinished[: 1 - MAX_UNFINISHED])
        self.add(SharedCommit(checksum, m.Held.BEGUN))

    def number(self, whole: SharedCommit, missing: Collection[ObjectName]) -> None:
        """Number a commit's objects, all its directories being here.

        Neighbours are told, and can watch what comes of it from now on.

        Args:
            whole: the commit as `load_complete` returned it.
            missing: which of its objects are not here yet.

        """
        shared = self._commits.get(whole.checksum)
        if shared is None or shared.held is not m.Held.BEGUN:
            return
        shared.closure = whole.closure
        shared.index = {name: at for at, name in enumerate(whole.closure)}
        shared.here = {at for name, at in shared.index.items() if name not in missing}
        shared.held = m.Held.PARTIAL
        self._names.update((m.prefix_of(name), name) for name in shared.closure)
        self._changed()

    def complete(self, checksum: Checksum) -> bool:
        """Share a commit as complete if its objects are known; tell whether it is."""
        shared = self._commits.get(checksum)
        if shared is None or shared.held is m.Held.BEGUN:
            return False
        if shared.held is m.Held.PARTIAL:
            shared.held = m.Held.COMPLETE
            shared.here = set()
            shared.index = {}
            self._changed()
        return True

    def add(self, shared: SharedCommit) -> None:
        """Share a commit; one that was shared as partial is replaced."""
        self._commits.pop(shared.checksum, None)
        self._commits[shared.checksum] = shared
        self._names.update((m.prefix_of(name), name) for name in shared.closure)
        self._changed()

    def add_ref(self, ref: str, collection: str, commit: Checksum) -> None:
        """Tell neighbours which commit a ref names.

        The one before stays shared, for those who still pull it; what is older and
        named by no other ref is not kept in memory any longer.
        """
        key = ref, collection
        before = self._refs.pop(key, commit)
        self._refs[key] = commit
        if before != commit:
            self._former[key] = before
            named = {*self._refs.values(), *self._former.values()}
            self._forget([c for c in self._commits if c not in named])
        self._changed()

    def add_objects(self, names: Iterable[ObjectName]) -> None:
        """Answer for more objects of a commit that is being pulled."""
        for name in names:
            self._names[m.prefix_of(name)] = name
            for shared in self._commits.values():
                if name in shared.index:
                    shared.here.add(shared.index[name])

    def remove(self, checksum: Checksum) -> None:
        """Stop sharing a commit and what only it reaches."""
        self._refs = {k: c for k, c in self._refs.items() if c != checksum}
        self._forget([checksum])
        self._changed()

    def _forget(self, checksums: Iterable[Checksum]) -> None:
        gone = [self._commits.pop(checksum, None) for checksum in checksums]
        if any(gone):
            self._names = {
                m.prefix_of(name): name
                for shared in self._commits.values()
                for name in shared.closure
            }

    # -- what neighbours ask ---------------------------------------------------

    def commits(self) -> Iterable[SharedCommit]:
        """Return the shared commits, oldest first."""
        return self._commits.values()

    def find(self, prefix: m.Prefix) -> ObjectName | None:
        """Return the shared object that a prefix means."""
        return self._names.get(prefix)

    def shares(self, name: ObjectName) -> bool:
        """Tell whether this object may be given."""
        return self._names.get(m.prefix_of(name)) == name

    def commit(self, checksum: Checksum) -> SharedCommit | None:
        """Return a shared commit."""
        return self._commits.get(checksum)

    def head(self, ref: str, collection: str) -> Checksum | None:
        """Return the commit of a shared ref."""
        return self._refs.get((ref, collection))

    def refs(self) -> Iterable[tuple[str, str]]:
        """Return the shared refs, each with its collection or ""."""
        return self._refs

    def message(self) -> m.Holdings:
        """Return all of it at commit grain, as neighbours are told: the newest."""
        commits = [m.HeldCommit(c.checksum, c.held) for c in self._commits.values()]
        refs = [
            m.HeldRef(ref, collection, commit)
            for (ref, collection), commit in self._refs.items()
            if max(len(ref.encode()), len(collection.encode())) <= MAX_REF_BYTES
        ]
        told = tuple(commits[-MAX_HELD_COMMITS:]), tuple(refs[-MAX_HELD_REFS:])
        return m.Holdings(*told, more=len(commits) + len(refs) > sum(map(len, told)))
