"""What others should know, collected for a moment before it is told."""

from __future__ import annotations

from p2p.ostree.objects import ObjectName
from p2p.swarm.action import AnnounceHave, AnnounceMember
from p2p.swarm.event import OriginState, UnitsHad
from p2p.swarm.site import Site

# As many as a member record has room for.
_FETCHES = 8


class News:
    """Collects what came and what is being fetched, and announces it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._names: list[ObjectName] = []
        self._units: dict[ObjectName, list[int]] = {}
        self._due: float | None = None
        self._told = AnnounceMember(OriginState.OK, ())
        self._report = 0.0

    def add_objects(self, names: list[ObjectName], now: float) -> None:
        """Note objects that can be served from now on."""
        self._names += names
        self._collect(now)

    def add_unit(self, name: ObjectName, unit: int, now: float) -> None:
        """Note a unit that can be served from now on."""
        self._units.setdefault(name, []).append(unit)
        self._collect(now)

    def withdraw_units(self, name: ObjectName) -> None:
        """Do not announce units that were discarded meanwhile."""
        self._units.pop(name, None)

    def _collect(self, now: float) -> None:
        if self._due is None:
            self._due = now + self._site.tuning.announce

    def run(self, now: float) -> None:
        """Announce what is due."""
        if self._due is not None and now >= self._due:
            units = tuple(UnitsHad(name, tuple(u)) for name, u in self._units.items())
            self._site.emit(AnnounceHave(tuple(self._names), units))
            self._names = []
            self._units = {}
            self._due = None
        if now >= self._report:
            self._tell_fetches(now)

    def _tell_fetches(self, now: float) -> None:
        site = self._site
        self._report = now + site.tuning.report
        long = [
            (site.name(item), fetch.byte_count)
            for item, fetch in site.fetches.items()
            if now - fetch.since >= site.tuning.report and not fetch.cancelled
        ]
        told = AnnounceMember(site.origin, tuple(long[:_FETCHES]))
        if told != self._told:
            self._told = told
            site.emit(told)

    def deadline(self) -> float | None:
        """Return when something is due."""
        if not self._site.fetches and not self._told.fetching:
            return self._due
        return self._report if self._due is None else min(self._due, self._report)
