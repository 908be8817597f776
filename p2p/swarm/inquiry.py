"""Which neighbours to ask what they have, where neither commits nor maps tell it.

Who holds a complete commit of ours has all of it. Who has all metadata of one can be
watched: it sends a map and what is added. For the rest, each object is asked about
once when it is found; and what nobody is known to have again from time to time, of
members that are getting it.
"""

from __future__ import annotations

from itertools import islice

from p2p.swarm.action import Ask, Watch
from p2p.swarm.bits import around, each, less
from p2p.swarm.lifecycle import State
from p2p.swarm.neighbour import Kind, Neighbour
from p2p.swarm.site import Site
from p2p.wire.messages import Held

# A poll is small: it is repeated.
_POLL_NAMES = 512

_MISSING = (State.OPEN, State.ASKED, State.FETCHING, State.SPLIT)


class Inquiry:
    """Sends Ask and Watch."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._due: float | None = None
        self._sized = 0
        self._seen: tuple[int, int, int, int] | None = None

    def run(self, now: float) -> None:
        """Ask whom there is something to ask."""
        site = self._site
        count = len(site.catalogue)
        seen = (count, site.membership, site.answers, len(site.closed))
        if seen == self._seen and (self._due is None or now < self._due):
            return
        self._due = None
        for neighbour in site.neighbours.values():
            if not neighbour.held or not neighbour.is_live:
                continue
            if now < neighbour.rest:
                self._wake_at(neighbour.rest)
                continue
            self._watch(neighbour, now)
            if any(r.kind is Kind.ASK for r in neighbour.requests.values()):
                continue
            if self._sized < count and neighbour.implied:
                self._ask_sizes(neighbour, now)
            elif neighbour.asked < count:
                self._ask_news(neighbour, now)
            elif neighbour.wants() and site.catalogue.having(*_MISSING):
                self._poll(neighbour, now)
        self._seen = seen

    def _wake_at(self, time: float) -> None:
        self._due = time if self._due is None else min(time, self._due)

    def deadline(self) -> float | None:
        """Return when the next poll is due; None if there is nothing to poll for."""
        return self._due

    def _watch(self, neighbour: Neighbour, now: float) -> None:
        site = self._site
        for commit in site.closed:
            if (
                neighbour.held.get(commit) is Held.PARTIAL
                and commit not in neighbour.mapped
                and commit not in neighbour.unmapped
                and not _watches(neighbour, commit)
                and len(neighbour.mapped) < site.tuning.watches
            ):
                request = site.open(neighbour, Kind.WATCH, (), left=0, now=now)
                request.commit = commit
                site.emit(Watch(neighbour.id, request.id, commit))

    def _unsettled(self, neighbour: Neighbour) -> int:
        """Return the missing objects of which we do not know whether it has them."""
        catalogue = self._site.catalogue
        bits = less(catalogue.having(*_MISSING), catalogue.units)
        return less(less(bits, neighbour.covered(catalogue.members)), neighbour.holds)

    def _ask_sizes(self, neighbour: Neighbour, now: float) -> None:
        """Ask somebody who has it how large what was found since is."""
        catalogue = self._site.catalogue
        bits = catalogue.having(*_MISSING) & neighbour.implied
        known = catalogue.units | catalogue.metadata | catalogue.signed
        fresh = less(bits, known) >> self._sized << self._sized
        most = neighbour.ask_limit(self._site.tuning.ask_names)
        items = list(islice(each(fresh), most))
        self._sized = items[-1] + 1 if items else len(catalogue)
        if items:
            self._ask(neighbour, items, now)

    def _ask_news(self, neighbour: Neighbour, now: float) -> None:
        site = self._site
        fresh = self._unsettled(neighbour) >> neighbour.asked << neighbour.asked
        most = neighbour.ask_limit(site.tuning.ask_names)
        items = list(islice(each(fresh), most))
        neighbour.asked = items[-1] + 1 if len(items) == most else len(site.catalogue)
        if items:
            self._ask(neighbour, items, now)

    def _poll(self, neighbour: Neighbour, now: float) -> None:
        site = self._site
        due = neighbour.polled + site.tuning.poll
        if now >= due:
            neighbour.polled = now
            due = now + site.tuning.poll
            unsettled = self._unsettled(neighbour)
            pool = less(unsettled, site.held_by_others()) if unsettled else 0
            pool = pool & site.catalogue.metadata or pool
            items = list(islice(around(pool, neighbour.poll_from), _POLL_NAMES))
            if items:
                neighbour.poll_from = items[-1] + 1
                self._ask(neighbour, items, now)
        self._wake_at(due)

    def _ask(self, neighbour: Neighbour, items: list[int], now: float) -> None:
        site = self._site
        request = site.open(neighbour, Kind.ASK, items, left=0, now=now)
        names = tuple(site.name(item) for item in items)
        site.emit(Ask(neighbour.id, request.id, names))


def _watches(neighbour: Neighbour, commit: str) -> bool:
    return any(request.commit == commit for request in neighbour.requests.values())
