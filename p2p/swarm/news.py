"""What others should know, collected for a moment before it is told."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, inf

from p2p.ostree.objects import Checksum, ObjectName, raw
from p2p.swarm.action import AnnounceHave, AnnounceMember
from p2p.swarm.bits import less
from p2p.swarm.event import OriginState
from p2p.swarm.lifecycle import State
from p2p.swarm.site import Fetch, Site
from p2p.wire.limits import MAX_CLAIM_COMMITS, MAX_CLAIM_LEASES, MAX_WAIT_MILLISECONDS
from p2p.wire.record import Active, Claim, bucket_lease, commit_tag, object_lease

MAX_BUSY_SECONDS = MAX_WAIT_MILLISECONDS // 1000
# Who fetches what is shorter is known well enough by whose lease it is.
_LONG_BYTES = 256 << 10
# If nobody told its size it is short until so much of it came.
_CAME_BYTES = 64 << 10
# A claim is said again and again, so what is left of a pause is told anew.
_BUSY_STEP = 5


class News:
    """Collects what came and what is being fetched, and announces it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._names: list[ObjectName] = []
        self._arriving: dict[ObjectName, None] = {}
        self._due: float | None = None
        self._told = Claim()
        self._state: object = None
        self._report = 0.0
        self._told_of = 0
        self._progress = 0.0
        self._fetched = -inf
        self._lease = bucket_lease(0)

    def add_objects(self, names: list[ObjectName], now: float) -> None:
        """Note objects that can be served from now on."""
        self._names += names
        self._collect(now)

    def add_unit(self, name: ObjectName, now: float) -> None:
        """Note that another unit of an object can be served from now on."""
        self._arriving[name] = None
        self._collect(now)

    def _collect(self, now: float) -> None:
        if self._due is None:
            self._due = now + self._site.tuning.announce

    def run(self, now: float) -> None:
        """Announce what is due."""
        if self._due is not None and now >= self._due:
            self._site.emit(AnnounceHave(tuple(self._names), tuple(self._arriving)))
            self._names = []
            self._arriving = {}
            self._due = None
        if now >= self._report or len(self._site.catalogue.members) > self._told_of:
            self._tell_claim(now)

    def _tell_claim(self, now: float) -> None:
        site = self._site
        self._report = now + site.tuning.report
        self._told_of = len(site.catalogue.members)
        self._state = self._our_state()
        if site.fetches:
            if now >= self._fetched + site.tuning.progress:
                first = site.name(next(iter(site.fetches)))
                self._lease = bucket_lease(raw(first.checksum)[0])
            self._fetched = now
        long = [
            Active(object_lease(site.name(item).checksum), fetch.byte_count)
            for item, fetch in site.fetches.items()
            if now - fetch.since >= site.tuning.report
            and not fetch.cancelled
            and self._is_long(item, fetch)
        ]
        wants, complete = self._commits()
        if not long and now < self._fetched + site.tuning.progress:
            # That we fetch at all is known, and who falls silent is missed.
            long = [Active(self._lease, 0)]
        claim = Claim(
            wants=tuple(map(commit_tag, wants)),
            complete=tuple(map(commit_tag, complete)),
            origin=site.origin,
            busy_seconds=self._busy_seconds(now),
            active=tuple(long[:MAX_CLAIM_LEASES]),
        )
        is_news = _without_progress(claim) != _without_progress(self._told)
        if is_news or (claim != self._told and now >= self._progress):
            is_urgent = self._is_urgent(claim) or self._is_urgent(self._told)
            self._told = claim
            self._progress = now + site.tuning.progress
            site.emit(AnnounceMember(claim, is_urgent))

    def _is_long(self, item: int, fetch: Fetch) -> bool:
        expected = self._site.catalogue.expect_bytes(item)
        return fetch.byte_count > _CAME_BYTES or expected > _LONG_BYTES

    def _is_urgent(self, claim: Claim) -> bool:
        """Tell whether others count on hearing of a claim at once.

        In a large site that is so for the few who fetch, or are about to: so that what
        is said there does not grow with the square of its size.
        """
        if claim.active or claim.busy_seconds:
            return True
        site = self._site
        is_small = site.members.count < site.tuning.committee
        may_fetch = claim.origin is OriginState.OK
        return may_fetch and (is_small or site.is_impatient)

    def _commits(self) -> tuple[list[Checksum], list[Checksum]]:
        """Return the commits of which something is missing, and the others."""
        catalogue = self._site.catalogue
        done = catalogue.having(State.DONE)
        found: tuple[list[Checksum], list[Checksum]] = ([], [])
        for commit, items in catalogue.members.items():
            is_here = commit in self._site.closed and not less(items, done)
            found[is_here].append(commit)
        return found[0][:MAX_CLAIM_COMMITS], found[1][:MAX_CLAIM_COMMITS]

    def _busy_seconds(self, now: float) -> int:
        """Return how long the origin wants no requests, in steps."""
        site = self._site
        if site.origin is not OriginState.BUSY:
            return 0
        left = max(0.0, site.origin_until - now)
        return min(_BUSY_STEP * ceil(left / _BUSY_STEP), MAX_BUSY_SECONDS)

    def _our_state(self) -> object:
        """Return what we say besides our fetches, as something to compare."""
        site = self._site
        catalogue = site.catalogue
        is_done = not less(catalogue.known, catalogue.having(State.DONE))
        return site.origin, site.origin_until, tuple(catalogue.members), is_done

    def deadline(self) -> float | None:
        """Return when something is due."""
        told = self._told
        is_quiet = not (self._site.fetches or told.active or told.busy_seconds)
        if is_quiet and self._state == self._our_state():
            return self._due
        return self._report if self._due is None else min(self._due, self._report)


def _without_progress(claim: Claim) -> Claim:
    active = tuple([Active(lease, 0) for lease, _ in claim.active])
    return replace(claim, active=active)
