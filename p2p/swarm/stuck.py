"""What cannot be had from anybody now, and why; reported when it changes."""

from __future__ import annotations

from p2p.swarm.action import Reason, ReportStuck
from p2p.swarm.bits import less
from p2p.swarm.event import Failure, OriginState
from p2p.swarm.lane import Lane
from p2p.swarm.large import Splits
from p2p.swarm.lifecycle import State
from p2p.swarm.site import Site

# Less than this is no news: a neighbour may announce it in a moment.
_PAUSE = 1.0

_REASONS = {
    Failure.NOT_FOUND: Reason.NOT_AT_ORIGIN,
    Failure.DAMAGED: Reason.DAMAGED,
}


class Stuck:
    """Watches what nobody can give."""

    def __init__(self, site: Site, splits: Splits, lane: Lane) -> None:
        self._site = site
        self._splits = splits
        self._lane = lane
        self._told: dict[Reason, int] = {}
        self._checked = 0.0

    def run(self, now: float) -> None:
        """Report what got stuck or loose, at most once a second."""
        if now < self._checked + _PAUSE:
            return
        self._checked = now
        found = self._find()
        for reason in Reason:
            bits = found.get(reason, 0)
            if bits != self._told.get(reason, 0):
                self._told[reason] = bits
                names = self._site.catalogue.names_of(bits)
                self._site.emit(ReportStuck(names, reason))

    def deadline(self) -> float | None:
        """Return when to look again; None while everything is asked for."""
        waiting = self._site.catalogue.having(State.OPEN, State.SPLIT)
        if not waiting and not any(self._told.values()):
            return None
        return self._checked + _PAUSE

    def _find(self) -> dict[Reason, int]:
        site = self._site
        catalogue = site.catalogue
        held = site.held_by_others()
        open_ = less(catalogue.having(State.OPEN), catalogue.units)
        lost = less(open_, held) | self._splits.orphans(held)
        found: dict[Reason, int] = {}
        for item, refusal in self._lane.refused.items():
            reason = _REASONS.get(refusal.failure)
            if reason is not None and lost >> item & 1:
                found[reason] = found.get(reason, 0) | 1 << item
                lost ^= 1 << item
        if site.origin in {OriginState.NO, OriginState.METERED} and lost:
            found[Reason.NO_SOURCE] = lost
        return found
