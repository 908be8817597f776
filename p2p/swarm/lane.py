"""What to fetch from the origin, object by object: ours at once, others' late.

Only what no live neighbour has, nor is seen fetching. See `ownership` for whose an
object is, and `patience` for when we fetch what is not ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from p2p.swarm.action import CancelOrigin, FetchFromOrigin
from p2p.swarm.beginning import Beginning
from p2p.swarm.bits import each, less, pack
from p2p.swarm.claims import Claims
from p2p.swarm.event import Failure, OriginState
from p2p.swarm.large import Splits
from p2p.swarm.lifecycle import State, Step
from p2p.swarm.membership import Member
from p2p.swarm.meter import Meter
from p2p.swarm.neighbour import Kind, Neighbour, Request
from p2p.swarm.ownership import Ownership, Shard
from p2p.swarm.patience import Patience
from p2p.swarm.site import Fetch, Site
from p2p.swarm.suspicion import Suspicion

# A fetch that gave nothing for so long is left to a neighbour who has the object.
_IDLE_FETCH = 2.0
# Who is so far ahead with an object that another fetches too finishes it.
_CLOSE_BYTES = 512 << 10
# How much is asked for at once before its rate is known.
_AHEAD_BYTES = 256 << 10
# After so many more objects it is looked how much is asked for.
_CHECKED = 8
# So long each member is waited for that comes before us to fetch a directory.
_DIRECTORY_SECONDS = 1.0
# What is expected to be smaller is finished even if a neighbour has it meanwhile.
_SMALL_BYTES = 256 << 10
_PASSING = {Failure.TRANSIENT, Failure.DAMAGED}

USELESS = {OriginState.NO, OriginState.METERED}
"""In these states of the origin nothing is fetched from it."""


@dataclass(slots=True)
class Refusal:
    """The origin did not give an object: when to try again, and why it failed."""

    until: float
    times: int
    failure: Failure


class Lane:
    """Keeps the origin as busy as it should be.

    Attributes:
        refused: objects the origin did not give.
        patience: our account of lost time.

    """

    def __init__(self, site: Site, splits: Splits) -> None:
        tuning = site.tuning
        spread = site.rng.random() * tuning.patience_spread
        self.refused: dict[int, Refusal] = {}
        self.patience = Patience(tuning.patience + spread)
        self.ownership = Ownership(site)
        self.suspicion = Suspicion(site, self.ownership)
        self._site = site
        self._splits = splits
        self._beginning = Beginning(site, self.ownership)
        self._claims = Claims(site)
        self._objects = Meter()
        self._bytes = Meter()
        self._won = 0.0
        self._moved = 0.0
        self._thaw = 0
        self._dry: tuple[int, int, int, bool] | None = None
        self._wake: float | None = None
        self._missing = (0, 0.0)
        self._is_paused = False

    # -- what happened -------------------------------------------------------------

    def win(self, byte_count: int) -> None:
        """Note bytes that came from neighbours, or came to them for us."""
        rate = self._bytes.rate() or self._site.tuning.nominal_rate
        self._won += byte_count / rate

    def progress(self, fetch: Fetch, byte_count: int, now: float) -> None:
        """Note how much of an object came so far."""
        self._bytes.add(max(0, byte_count - fetch.byte_count), now)
        fetch.byte_count = max(fetch.byte_count, byte_count)
        fetch.moved = self._moved = now

    def end(self, item: int, now: float) -> Fetch | None:
        """Forget a fetch that is over; None if it was not open."""
        fetch = self._site.fetches.pop(item, None)
        if fetch is None:
            return None
        self._objects.add(1, now)
        if fetch.cancelled:
            self._dry = None  # it may be begun again
        if not self._site.fetches:
            self._objects.stop(now)
            self._bytes.stop(now)
        return fetch

    def deliver(self, fetch: Fetch, size: int, now: float) -> None:
        """Note that a fetch brought its object."""
        self.progress(fetch, size, now)
        # One by one, then faster and faster, as long as it helps.
        self._thaw += fetch.impatient

    def refuse(self, item: int, failure: Failure, now: float) -> None:
        """Do not ask the origin for an object for a while."""
        tuning = self._site.tuning
        refusal = self.refused.setdefault(item, Refusal(now, 0, failure))
        refusal.times += 1
        refusal.failure = failure
        rest = min(tuning.rest * 2.0**refusal.times, tuning.longest_rest)
        if failure is Failure.NOT_FOUND:
            rest = tuning.not_found_rest
        refusal.until = now + rest * (0.75 + 0.5 * self._site.rng.random())
        self._dry = None

    def reopen(self, item: int) -> None:
        """Let neighbours be asked again for an object the origin did not give."""
        if not self._splits.resume(item):
            self._site.catalogue.shift(Step.GIVE_UP, 1 << item)

    def cancel(self, item: int, fetch: Fetch) -> None:
        """Give up a fetch; its object is open again."""
        fetch.cancelled = True
        self._site.emit(CancelOrigin(self._site.name(item)))
        self.reopen(item)

    def leave_to_neighbours(self, bits: int, now: float) -> None:
        """Give up fetches of what neighbours have, unless nearly done with them."""
        site = self._site
        for item, fetch in site.fetches.items():
            if fetch.cancelled or not bits >> item & 1:
                continue
            size = site.catalogue.expect_bytes(item)
            is_early = size > _SMALL_BYTES and 2 * fetch.byte_count < size
            if is_early or now - fetch.moved > _IDLE_FETCH:
                self.cancel(item, fetch)

    def yield_to(self, member: Member) -> None:
        """Give up what a member fetches too, if it should be the one to finish it.

        That is who got more of it, or by id if the two are close: what we know of it
        is a moment old. So one of the two always goes on.
        """
        site = self._site
        lead = _CLOSE_BYTES if site.me < member.id else -_CLOSE_BYTES
        for lease, byte_count in member.active.items():
            item = site.catalogue.find_lease(lease)
            fetch = site.fetches.get(item) if item is not None else None
            if item is None or fetch is None or fetch.cancelled:
                continue
            if byte_count > fetch.byte_count + lead:
                self.cancel(item, fetch)

    def forgive(self) -> None:
        """Try again at once what failed while the origin was not well."""
        for item in [k for k, r in self.refused.items() if r.failure in _PASSING]:
            del self.refused[item]
        self._dry = None

    def review(self, now: float) -> None:
        """Leave to neighbours what the origin does not get on with."""
        fetches = self._site.fetches.values()
        if any(now - fetch.moved > _IDLE_FETCH for fetch in fetches):
            self.leave_to_neighbours(self._claims.held(now), now)

    # -- what to do ----------------------------------------------------------------

    def rank(self) -> None:
        """Work out whose is what, if members or commits changed.

        While the origin is of no use to us it does not matter.
        """
        if self._site.origin not in USELESS and self.ownership.refresh():
            self._dry = None

    def run(self, now: float) -> None:
        """Fetch what is ours, and what is not once patience is spent."""
        site = self._site
        if site.origin is OriginState.BUSY and now >= site.origin_until:
            site.origin = OriginState.OK
        if site.origin is not OriginState.OK:
            self._account(now, waiting=False)
            self._beginning.restart()
            return
        self._beginning.run(now)
        self._is_paused = now < site.members.busy_until and not self.patience.is_spent
        if self._is_paused:
            # It told a member to come back later, and we come from the same place.
            self._account(now, waiting=bool(site.catalogue.having(State.OPEN)))
            self._dry = self._wake = None
            return
        if self.ownership.is_member and self.suspicion.is_due(now):
            self.suspicion.review(self._needed(now), self._moved, now)
            self._dry = None
        has_own = self._fetch_ours(now)
        unfinished = site.catalogue.having(State.OPEN, State.ASKED, State.SPLIT)
        self._account(now, waiting=bool(unfinished) and not has_own)
        if self.patience.is_spent and self._may_use_valve():
            self._fetch_theirs(now)
        else:
            self._thaw = 0

    def _may_use_valve(self) -> bool:
        """Tell whether it is up to us to help out: a few first, later everybody."""
        ownership = self.ownership
        is_first = ownership.is_member or ownership.place < self._site.tuning.valve
        return is_first or self.patience.is_spent_twice

    def _account(self, now: float, *, waiting: bool) -> None:
        # What we read slowly ourselves is lost on nobody.
        waiting = waiting and not self._site.is_read_slowly
        self.patience.watch(now, waiting=waiting, won=self._won)
        self._won = 0.0
        self._site.is_impatient = self.patience.is_half_spent

    def deadline(self) -> float | None:
        """Return when `run` has something to do by itself."""
        site = self._site
        if site.origin is OriginState.BUSY:
            return site.origin_until
        if site.origin is not OriginState.OK:
            return None
        if self._is_paused:
            patience = self.patience.deadline()
            until = site.members.busy_until
            return until if patience is None else min(until, patience)
        times = [self.patience.deadline(), self._wake]
        if self.ownership.is_member:
            times.append(self.suspicion.deadline())
        times += self._beginning.deadlines()
        return min((time for time in times if time is not None), default=None)

    def _fetch_ours(self, now: float) -> bool:
        """Fetch from our own shards; tell whether we are busy with them."""
        site = self._site
        room = self._room()
        catalogue = site.catalogue
        is_walking = self._beginning.is_walking(now)
        seen = (site.epoch, catalogue.opened, len(catalogue), is_walking)
        is_awake = self._wake is not None and now >= self._wake
        is_due = room > 0 and self.ownership.is_member and not self._beginning.is_early
        if is_due and (seen != self._dry or is_awake):
            needed = self._needed(now)
            if is_walking:
                needed &= catalogue.metadata
                self._wake_at([self._beginning.until])
            if not self._take_needed(needed, room, now):
                self._dry = seen
        return any(not fetch.impatient for fetch in site.fetches.values())

    def _take_needed(self, needed: int, room: int, now: float) -> int:
        """Fetch from our own shards, or else directories that do not come."""
        if not needed:
            self._missing = 0, now
            return 0
        own = self.ownership.own
        taken = self._take(own, needed, room, now, impatient=False)
        return taken or (self._take_directories(needed, room, now) if own else 0)

    def _take_directories(self, needed: int, room: int, now: float) -> int:
        """Fetch directories that do not come, the sooner the fewer come before us.

        They are short, and while one is missing nobody can tell what else is there.
        """
        missing = needed & self._site.catalogue.metadata
        if missing != self._missing[0]:
            self._missing = missing, now
        if not missing:
            return 0
        waited = (now - self._missing[1]) / _DIRECTORY_SECONDS
        self._wake_at([now + _DIRECTORY_SECONDS])
        late = [shard for shard in self.ownership.late if shard.above <= waited]
        return (
            self._take(late, missing, room, now, impatient=True) if waited >= 1 else 0
        )

    def _fetch_theirs(self, now: float) -> None:
        """Fetch one by one, what nobody is seen to fetch first."""
        site = self._site
        active = sum(fetch.impatient for fetch in site.fetches.values())
        room = min(self._room(), 1 + self._thaw - active)
        if room <= 0:
            return
        catalogue = site.catalogue
        late = self.ownership.late
        room -= self._take(late, self._needed(now), room, now, impatient=True)
        resting = self._resting(now) | catalogue.units
        for state in (State.OPEN, State.SPLIT):
            slow = less(catalogue.having(state), resting)
            room -= self._take(late, slow, room, now, impatient=True)
        if room > 0:
            # At once: what is left open would be asked of the same neighbour again.
            self._take(late, self._take_back(now), room, now, impatient=True)

    def _take(
        self, shards: list[Shard], pool: int, room: int, now: float, *, impatient: bool
    ) -> int:
        """Start up to `room` fetches, metadata first; return how many."""
        ownership = self.ownership
        metadata = self._site.catalogue.metadata
        is_streaming = any(ownership.is_single(item) for item in self._site.fetches)
        started = 0
        for part in (pool & metadata, less(pool, metadata)):
            for shard in shards if part else ():
                items = ownership.items if impatient else ownership.unclaimed
                for item in each(items(shard) & part):
                    if started == room:
                        return started
                    if started and started % _CHECKED == 0 and self._room() <= 0:
                        return started
                    if is_streaming and shard.item >= 0:
                        continue
                    if item in self._site.fetches:
                        continue  # cancelled, and not heard of since
                    is_streaming = is_streaming or shard.item >= 0
                    self._start(item, now, impatient=impatient)
                    started += 1
        return started

    def _start(self, item: int, now: float, *, impatient: bool) -> None:
        site = self._site
        self._splits.suspend(item)
        site.catalogue.shift(Step.FETCH, 1 << item)
        self._objects.start(now)
        self._bytes.start(now)
        site.fetches[item] = Fetch(since=now, moved=now, impatient=impatient)
        site.emit(FetchFromOrigin(site.name(item)))

    def _take_back(self, now: float) -> int:
        """Wait no more for who is slowest beyond all patience; return for what."""
        if any(refusal.failure in _PASSING for refusal in self.refused.values()):
            return 0  # it is slow, but gives more than the origin
        slowest: tuple[Neighbour, Request] | None = None
        longest = self.patience.limit
        for neighbour in self._site.neighbours.values():
            for request in neighbour.requests.values():
                is_due = request.kind is Kind.BATCH and not request.cancelled
                if is_due and neighbour.eta() > longest:
                    longest = neighbour.eta()
                    slowest = (neighbour, request)
        if slowest is None:
            return 0
        self._site.cancel(*slowest, now)
        return pack(slowest[1].items) & self._site.catalogue.having(State.OPEN)

    # -- what there is to do -------------------------------------------------------

    def _room(self) -> int:
        site = self._site
        if self._beginning.is_hushed:
            return 1 - len(site.fetches)
        wished = int(site.tuning.window * self._objects.rate())
        # Many small directories that came quickly say nothing of the content.
        left = sum(
            max(0, site.catalogue.expect_bytes(item) - fetch.byte_count)
            for item, fetch in site.fetches.items()
        )
        if left > max(_AHEAD_BYTES, 2 * site.tuning.window * self._bytes.rate()):
            wished = 0
        wished = max(wished, site.tuning.origin_least)
        return min(wished, site.limits.origin_requests) - len(site.fetches)

    def _needed(self, now: float) -> int:
        """Return the objects that can only come from the origin now."""
        site = self._site
        catalogue = site.catalogue
        self._wake = None
        held = self._claims.held(now)
        self._wake_at([self._claims.until])
        bits = less(catalogue.having(State.OPEN), catalogue.units)
        bits = less(bits, held) | self._splits.orphans(held)
        if not bits:
            return 0
        for member in site.fetchers():
            if member.active:
                expiry = member.progressed + self.patience.limit
                if now < expiry:
                    bits = less(bits, self._fetched_by(member))
                    self._wake_at([expiry])
        return less(bits, self._resting(now))

    def _fetched_by(self, member: Member) -> int:
        """Return the single objects that a member says it is fetching."""
        find = self._site.catalogue.find_lease
        items = [find(lease) for lease in member.active]
        return pack(item for item in items if item is not None)

    def _resting(self, now: float) -> int:
        waiting = {k: r.until for k, r in self.refused.items() if r.until > now}
        self._wake_at(waiting.values())
        return pack(waiting)

    def _wake_at(self, times: Iterable[float]) -> None:
        soonest = min(times, default=inf)
        if soonest < (inf if self._wake is None else self._wake):
            self._wake = soonest
