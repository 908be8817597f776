"""What came, in the numbers of each commit that neighbours watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from p2p.agent.scratch import Scratch
from p2p.agent.sharing import SharedCommit
from p2p.ostree.objects import ObjectName
from p2p.wire.messages import UnitMap


class Numbered(NamedTuple):
    """What of it belongs to one commit, as HAVE and UNITS say it."""

    commit: SharedCommit
    indices: tuple[int, ...]
    units: tuple[UnitMap, ...]


class Announcement:
    """Objects that came, and all units of those that are arriving or were.

    It is numbered once a commit, however many neighbours watch that.
    """

    def __init__(
        self, names: Sequence[ObjectName], arriving: Sequence[ObjectName]
    ) -> None:
        self._names = names
        self._arriving = arriving
        self._numbered: dict[int, Numbered] = {}

    def within(self, commit: SharedCommit, scratch: Scratch) -> Numbered:
        """Return what of it belongs to a commit; `scratch` knows the units."""
        # The entry keeps the commit, and so its id.
        found = self._numbered.get(id(commit))
        if found is None:
            found = self._numbered[id(commit)] = self._number(commit, scratch)
        return found

    def _number(self, commit: SharedCommit, scratch: Scratch) -> Numbered:
        index = commit.index
        indices = sorted([index[name] for name in self._names if name in index])
        units = [
            UnitMap(index[name], scratch.bitmap(name))
            for name in self._arriving
            if name in index and index[name] not in commit.here
        ]
        return Numbered(commit, tuple(indices), tuple(units))
