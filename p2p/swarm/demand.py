"""Keeps every neighbour busy, as far as windows and memory allow.

Metadata comes before content, because it tells what else is wanted. Content is taken
rarest first, so that what few have spreads before they leave; among equally rare
things those whose rendezvous owner we are, so that the takers of a sole holder take
different ones; and at random among those.
"""

from __future__ import annotations

from itertools import islice

from p2p.swarm import liveness
from p2p.swarm.action import RequestBatch, RequestHashes, RequestUnit
from p2p.swarm.bits import around, each, fewest, less, pack, unite
from p2p.swarm.large import Splits
from p2p.swarm.lifecycle import State, Step
from p2p.swarm.neighbour import Kind, Neighbour
from p2p.swarm.ownership import Ownership
from p2p.swarm.site import Site
from p2p.wire.limits import MAX_PAGE_HASHES

# Lists of hashes asked of one neighbour at once. It reads a whole object for each,
# and what is asked for behind them waits.
_HASH_REQUESTS = 2
# What such a list is taken to weigh, so that its giver may be found slow.
_PAGE_BYTES = 4096
# How long a neighbour that had nothing for us is not looked at again, unless we learn
# something: what may be asked of it depends on the others too.
_STARVED = 0.25
# Who reads for longer what is asked of all gains nothing from asking twice.
_LONG_TO_READ = 0.2


class Demand:
    """Chooses requests to neighbours."""

    def __init__(self, site: Site, splits: Splits, ownership: Ownership) -> None:
        self._site = site
        self._splits = splits
        self._ownership = ownership
        self._accounted = 0.0

    def run(self, now: float) -> None:
        """Ask whoever has room, the least loaded first, until nobody has."""
        site = self._site
        self._ask_hashes(now)
        is_due = now >= self._accounted + liveness.ACCOUNTING
        if is_due:
            self._accounted = now
        ready: list[Neighbour] = []
        anything = site.catalogue.having(State.OPEN)
        for neighbour in site.neighbours.values():
            if is_due and neighbour.is_spared:
                self._account(neighbour, now)
            if anything and self.has_room(neighbour, now):
                ready.append(neighbour)
        while ready and self._memory_left() > 0:
            neighbour = min(ready, key=_load)
            if not self._request(neighbour, now):
                neighbour.starved = self._signature(neighbour)
                neighbour.starved_until = now + _STARVED
                ready.remove(neighbour)
                continue
            # It has something after all, and may have more when this has come.
            neighbour.starved = -1
            neighbour.lot = site.rng.random()
            if not self.has_room(neighbour, now):
                ready.remove(neighbour)

    def _memory_left(self) -> int:
        site = self._site
        if site.backlog >= site.limits.backlog_bytes:
            return 0
        return site.limits.request_bytes - site.outstanding

    def has_room(self, neighbour: Neighbour, now: float) -> bool:
        """Tell whether a neighbour could be asked for something."""
        if neighbour.deferred:
            neighbour.expire(now)
        is_starved = neighbour.starved == self._signature(neighbour)
        if is_starved and now < neighbour.starved_until:
            return False
        outstanding = neighbour.outstanding
        unit = self._site.tuning.unit_bytes
        if outstanding >= unit and outstanding >= self._window(neighbour):
            return False
        if neighbour.stalled is not None or now < neighbour.rest:
            return False
        return self._allows(neighbour, self._site.tuning.batch_names)

    def _allows(self, neighbour: Neighbour, names: int) -> bool:
        """Tell whether a neighbour takes so many names more, and an ASK besides."""
        spare = neighbour.ask_limit(self._site.tuning.ask_names)
        return neighbour.allows(names, spare=spare)

    def _signature(self, neighbour: Neighbour) -> int:
        """Whoever had nothing to give has nothing until this changes."""
        site = self._site
        known = site.catalogue.opened + neighbour.learned + site.membership
        return 2 * known + neighbour.grace.is_spent

    def _window(self, neighbour: Neighbour) -> float:
        tuning = self._site.tuning
        if neighbour.snubbed or neighbour.is_doubtful:
            return tuning.unit_bytes
        return tuning.window * neighbour.meter.rate()

    # -- one request ---------------------------------------------------------------

    def _request(self, neighbour: Neighbour, now: float) -> bool:
        """Ask a neighbour for something; False if it has nothing we could ask for."""
        catalogue = self._site.catalogue
        offers = neighbour.offers(now)
        candidates = catalogue.having(State.OPEN) & offers
        whole = less(less(candidates, catalogue.large), neighbour.refused)
        metadata = whole & catalogue.metadata
        if metadata:
            self._ask_batch(neighbour, metadata, now)
            return True
        content = self._spare(neighbour, whole, now)
        if not content:
            return False
        self._ask_content(neighbour, content, now)
        return True

    def _spare(self, neighbour: Neighbour, content: int, now: float) -> int:
        """Leave out what a complete holder should not be asked for by us, yet.

        What leaves it should be new to the site, so that its uplink is not the bound
        for all: we ask it for what is ours to ask for and no partial holder has. For
        the rest only once that costs us time, because the others are slower than it.
        """
        given = content & neighbour.implied
        others = less(given, self._ownership.preferred)
        if given and self._ownership.is_shared:
            for other in self._site.neighbours.values():
                others |= less(given & other.announced, other.implied)
        rest = less(content, others)
        neighbour.is_spared = bool(others and not rest)
        self._account(neighbour, now)
        return content if neighbour.grace.is_spent else rest

    def _account(self, neighbour: Neighbour, now: float) -> None:
        """Count the time we lose by sparing a neighbour."""
        by_others = self._site.tally.neighbours - neighbour.given
        rate = neighbour.meter.rate() or self._site.tuning.nominal_rate
        won = (by_others - neighbour.by_others) / rate
        neighbour.by_others = by_others
        neighbour.grace.watch(now, waiting=neighbour.is_spared, won=won)

    def _ask_hashes(self, now: float) -> None:
        """Ask for unit hashes: they are short, and units are most of all bytes."""
        site = self._site
        catalogue = site.catalogue
        open_ = catalogue.having(State.OPEN)
        lacking = open_ & catalogue.large | self._pages_lacking()
        refused = less(open_, catalogue.signed)
        refused &= unite(n.refused for n in site.neighbours.values())
        if not lacking | refused:
            return
        for neighbour in site.neighbours.values():
            if not neighbour.is_live or now < neighbour.rest:
                continue
            kinds = [request.kind for request in neighbour.requests.values()]
            room = _HASH_REQUESTS - kinds.count(Kind.HASHES)
            # Who would not give something whole is asked in the other way, even if
            # nobody else is told that it is large.
            ours = lacking | refused & neighbour.refused
            found = ours & (neighbour.offers(now) | neighbour.lists)
            found = less(found, neighbour.whole)
            for item in islice(each(found), max(room, 0)):
                first, count = self._page(item)
                if not self._allows(neighbour, count):
                    break
                self._ask_page(neighbour, item, first, count, now)
                lacking = less(lacking, 1 << item)
                refused = less(refused, 1 << item)

    def _pages_lacking(self) -> int:
        """Return the objects a page of whose hashes is missing and not asked for."""
        bits = self._splits.paging
        if not bits:
            return 0
        for neighbour in self._site.neighbours.values():
            for request in neighbour.requests.values():
                if request.kind is Kind.HASHES and not request.cancelled:
                    bits = less(bits, pack(request.items))
        return bits

    def _page(self, item: int) -> tuple[int, int]:
        """Return the first unit whose hash is missing, and how many to ask about."""
        split = self._splits.get(item)
        first = split.listed if split is not None else 0
        # A hint may be false: then there is another page. Without one a whole page is
        # asked for: who passes a list on cannot cut pages up, which are signed.
        units = -(-self._site.catalogue.sizes[item] // self._site.tuning.unit_bytes)
        count = units - first if units > first else MAX_PAGE_HASHES
        return first, min(count, MAX_PAGE_HASHES)

    def _ask_page(
        self, neighbour: Neighbour, item: int, first: int, count: int, now: float
    ) -> None:
        request = self._site.open(
            neighbour, Kind.HASHES, [item], left=_PAGE_BYTES, names=count, now=now
        )
        request.first = first
        self._site.catalogue.shift(Step.ASK, 1 << item)
        name = self._site.name(item)
        self._site.emit(RequestHashes(neighbour.id, request.id, name, first, count))

    def _ask_content(self, neighbour: Neighbour, content: int, now: float) -> None:
        rare = fewest(content, self._site.count_copies(now))
        rare = rare & self._ownership.preferred or rare
        item = next(around(rare, self._random_item()))
        if self._site.catalogue.units >> item & 1:
            self._ask_unit(neighbour, item, now)
        else:
            self._ask_batch(neighbour, content, now, rare=rare, start=item)

    def _random_item(self) -> int:
        return self._site.rng.randrange(len(self._site.catalogue))

    def _ask_unit(self, neighbour: Neighbour, item: int, now: float) -> None:
        catalogue = self._site.catalogue
        split = self._splits.of_unit(item)
        assert split is not None  # noqa: S101 - a unit without split is not open
        size = catalogue.sizes[item]
        request = self._site.open(neighbour, Kind.UNIT, [item], left=size, now=now)
        catalogue.shift(Step.ASK, 1 << item)
        name = self._site.name(item)
        unit = item - split.first
        self._site.emit(RequestUnit(neighbour.id, request.id, name, unit))

    def _ask_batch(
        self,
        neighbour: Neighbour,
        pool: int,
        now: float,
        *,
        rare: int = 0,
        start: int | None = None,
    ) -> list[int]:
        """Ask for as many of the pool as fit, and return them."""
        catalogue = self._site.catalogue
        begin = self._random_item() if start is None else start
        items: list[int] = []
        left = 0
        rare = less(rare, catalogue.units)
        others = less(less(pool, catalogue.units), rare)
        for part in (rare, others):
            for item in around(part, begin) if part else ():
                size = catalogue.expect_bytes(item)
                if items and self._is_full(len(items), left + size):
                    break
                items.append(item)
                left += size
        request = self._site.open(neighbour, Kind.BATCH, items, left=left, now=now)
        catalogue.shift(Step.ASK, pack(items))
        names = tuple(self._site.name(item) for item in items)
        most = self._site.tuning.large_bytes
        self._site.emit(RequestBatch(neighbour.id, request.id, names, most))
        return items

    def _is_full(self, count: int, size: int) -> bool:
        tuning = self._site.tuning
        return size > tuning.unit_bytes or count >= tuning.batch_names

    # -- twice on purpose ----------------------------------------------------------

    def hedge(self, now: float) -> None:
        """In the endgame, ask idle neighbours for what others are slow to give."""
        site = self._site
        if not liveness.is_endgame(site, now):
            return
        if site.seconds_to_read(site.outstanding) > _LONG_TO_READ:
            return  # twice as much would take us twice as long
        for neighbour in list(site.neighbours.values()):
            idle = neighbour.is_live and not neighbour.waiting and not neighbour.snubbed
            if not idle or now < neighbour.rest or neighbour.is_doubtful:
                continue
            found = liveness.hedgeable(site, neighbour, now)
            if found:
                self._ask_twice(neighbour, found, now)

    def _ask_twice(self, neighbour: Neighbour, bits: int, now: float) -> None:
        site = self._site
        items = list(each(bits))
        sizes = {item: site.catalogue.expect_bytes(item) for item in items}
        if sum(sizes.values()) > liveness.hedge_room(site):
            return
        if site.catalogue.units & bits:
            asked = items[:1]
            self._ask_unit(neighbour, items[0], now)
        else:
            # Not all of them may fit.
            asked = self._ask_batch(neighbour, bits, now)
        site.hedge({item: sizes[item] for item in asked})


def _load(neighbour: Neighbour) -> tuple[bool, float, float]:
    return neighbour.is_doubtful, neighbour.eta(), neighbour.lot
