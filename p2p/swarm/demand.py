"""Keeps every neighbour busy, as far as windows and memory allow.

Metadata comes before content, because it tells what else is wanted. Content is taken
rarest first, so that what few have spreads before they leave; among equally rare things
units of large objects first, for small ones fill the gaps at the end better; and at
random among those. That takers of one holder take different things is its own doing
(`giving`): what it refers to others is asked of it again a little later only.
"""

from __future__ import annotations

from itertools import islice

from p2p.swarm import liveness
from p2p.swarm.action import RequestBatch, RequestHashes, RequestUnit
from p2p.swarm.bits import around, each, fewest, less, nth, pack, unite
from p2p.swarm.large import Splits
from p2p.swarm.lifecycle import State, Step
from p2p.swarm.neighbour import Kind, Neighbour
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


# So much is asked of anybody ahead of what it delivers. Less than a unit, for what is
# on its way to one device cannot reach others yet.
_LEAST_WINDOW = 64 << 10
# And so much more than what it gives in a window's time. A giver serves in proportion
# to what it is asked for: by rates alone, who gets less than others would go on so.
_SPARE_WINDOW = 32 << 10


class Demand:
    """Chooses requests to neighbours."""

    def __init__(self, site: Site, splits: Splits) -> None:
        self._site = site
        self._splits = splits

    def run(self, now: float) -> None:
        """Ask whoever has room, the least loaded first, until nobody has."""
        site = self._site
        self._ask_hashes(now)
        if not site.catalogue.having(State.OPEN):
            return
        ready = [n for n in site.neighbours.values() if self.has_room(n, now)]
        while ready and self._memory_left() > 0:
            neighbour = min(ready, key=_load)
            if not self._request(neighbour, now):
                neighbour.starved = self._signature(neighbour, now)
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
        is_starved = neighbour.starved == self._signature(neighbour, now)
        if is_starved and now < neighbour.starved_until:
            return False
        if neighbour.outstanding >= self._window(neighbour):
            return False
        if neighbour.stalled is not None or now < neighbour.rest:
            return False
        if self._site.lapsed and neighbour.owes_late:
            return False
        return self._allows(neighbour, self._site.tuning.batch_names)

    def _allows(self, neighbour: Neighbour, names: int) -> bool:
        """Tell whether a neighbour takes so many names more, and an ASK besides."""
        spare = neighbour.ask_limit(self._site.tuning.ask_names)
        return neighbour.allows(names, spare=spare)

    def _signature(self, neighbour: Neighbour, now: float) -> int:
        """Whoever had nothing to give has nothing until this changes."""
        site = self._site
        known = site.catalogue.opened + neighbour.learned + site.membership
        is_spared = now < liveness.spared_until(self._site, neighbour)
        return 2 * known + is_spared

    def _window(self, neighbour: Neighbour) -> float:
        tuning = self._site.tuning
        if neighbour.snubbed or neighbour.is_doubtful:
            return _LEAST_WINDOW
        rate = neighbour.meter.rate()
        if not rate:
            return tuning.unit_bytes
        return max(tuning.window * rate + _SPARE_WINDOW, _LEAST_WINDOW)

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
        """Leave out what a complete holder need not be asked for, for a while.

        What others got meanwhile is asked of them, unless we lose time by it.
        """
        given = content & neighbour.implied
        common = unite(
            given & less(other.holds, other.implied)
            for other in self._site.neighbours.values()
            if given and other.served and other.is_live and not other.snubbed
        )
        rest = less(content, common)
        if rest or not common:
            neighbour.spared = None
        elif neighbour.spared is None:
            neighbour.spared = now
        elif now >= liveness.spared_until(self._site, neighbour):
            return content
        return rest

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
                if request.kind is Kind.HASHES and request.is_due:
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
        rare = rare & self._site.catalogue.units or rare
        # Objects that become whole one by one leave less to do at the end.
        rare = rare & self._splits.nearly_whole or rare
        # Not the next one after a random number: that is the same one for most takers
        # once few are left, and those that follow it spread after it only.
        item = nth(rare, self._site.rng.randrange(rare.bit_count()))
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
        left = int(catalogue.sizes[item] * neighbour.luck)
        request = self._site.open(neighbour, Kind.UNIT, [item], left=left, now=now)
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
        tuning = self._site.tuning
        luck, names = neighbour.luck, tuning.batch_names
        most = min(self._window(neighbour), tuning.unit_bytes)
        begin = self._random_item() if start is None else start
        items: list[int] = []
        left = 0.0
        rare = less(rare, catalogue.units)
        others = less(less(pool, catalogue.units), rare)
        for part in (rare, others):
            for item in around(part, begin) if part else ():
                size = catalogue.expect_bytes(item) * luck
                if items and (left + size > most or len(items) >= names):
                    break
                items.append(item)
                left += size
        request = self._site.open(neighbour, Kind.BATCH, items, left=int(left), now=now)
        catalogue.shift(Step.ASK, pack(items))
        objects = tuple(self._site.name(item) for item in items)
        limit = tuning.large_bytes
        self._site.emit(RequestBatch(neighbour.id, request.id, objects, limit))
        return items

    # -- twice on purpose ----------------------------------------------------------

    def hedge(self, now: float) -> None:
        """In the endgame, ask idle neighbours for what others are slow to give."""
        site = self._site
        if not liveness.is_endgame(site):
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
