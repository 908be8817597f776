"""How we begin to use the origin: quietly, and in a large site one after the other.

Who begins knows of few others, and few know of it, so that much would be fetched twice.
So it asks for one object at a time at first, and for content when the directories are
here, which tell everybody what else there is.
"""

from __future__ import annotations

from math import inf

from p2p.swarm.bits import less
from p2p.swarm.lifecycle import State
from p2p.swarm.ownership import Ownership
from p2p.swarm.site import Site

# With so many others, those who fetch begin one after the other.
_MANY = 12


class Beginning:
    """The first seconds in which we may use the origin.

    Attributes:
        is_hushed: others may not have heard of us, nor we of them.
        is_early: others come before us.
        until: when the beginning is over, whatever happens.

    """

    def __init__(self, site: Site, ownership: Ownership) -> None:
        self.is_hushed = False
        self.is_early = False
        self.until = 0.0
        self._site = site
        self._ownership = ownership
        self._loud_from = inf
        self._turn = 0.0
        self._company = (0, 0)

    def __repr__(self) -> str:
        return f"<Beginning until {self.until:.1f}, loud from {self._loud_from:.1f}>"

    def restart(self) -> None:
        """Begin anew when the origin is of use again."""
        self._loud_from = inf

    def run(self, now: float) -> None:
        """Look whether we may be louder: when nobody has come for a moment."""
        site = self._site
        tuning = site.tuning
        if self._loud_from == inf and len(site.catalogue):
            self.until = now + tuning.longest_hush
            self._loud_from = now + tuning.hush
            self._turn = now + self._wait_for_first()
        company = (len(site.neighbours), site.members.version)
        if company != self._company:
            self._company = company
            if now < self.until and self._loud_from < inf:
                self._loud_from = now + tuning.hush
        self.is_hushed = now < self._loud_from
        self.is_early = now < self._turn

    def _wait_for_first(self) -> float:
        """Return how long we wait to hear of those who come before us.

        Else all devices of a large site would begin, as nobody knows of anybody.
        """
        site = self._site
        if max(len(site.neighbours), site.members.count) < _MANY:
            return 0.0
        return self._ownership.lateness * site.tuning.longest_hush

    def is_walking(self, now: float) -> bool:
        """Tell whether directories are missing still.

        Content would be in their way, and before all are known nobody can say in few
        words what it has.
        """
        if now >= self.until:
            return False
        catalogue = self._site.catalogue
        done = catalogue.having(State.DONE, State.FORGOTTEN)
        return bool(less(catalogue.metadata, done))

    def deadlines(self) -> list[float]:
        """Return when `run` has something to do by itself."""
        times = [self._loud_from] if self.is_hushed else []
        return [*times, self._turn] if self.is_early else times
