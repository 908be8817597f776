"""Spreads what members say of themselves over a site of any size; sans-IO.

Theory of operation. A record belongs to one member; of two the one with the later
(epoch, seq) counts. What is news is passed on to a few sessions (`spread`): at once if
others wait for it, because it is about the use of the origin; else what came in a while
together. What got lost is made up for by digests: every few seconds two neighbours
compare which records they have.

A record says how old it is, so that it is forgotten everywhere at about the same time
and nobody brings back a member that is gone. All of it is state: what waits to be sent
is replaced by what is newer.

One `Gossip` lives as long as its agent. Whoever drives it calls `outgoing` after every
other call and at `next_timeout`, and then looks at `changes`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from p2p.swarm.spread import Spread
from p2p.wire.limits import MAX_DIGEST_VERSIONS, MAX_RECORD_AGE
from p2p.wire.messages import DeviceId, Digest, Record, Version
from p2p.wire.record import Claim, OriginState, encode_claim

if TYPE_CHECKING:
    from random import Random

Sign = Callable[[DeviceId, int, int, bytes], bytes]
"""Makes the body of our record of (member, epoch, seq, claim)."""


class Said(NamedTuple):
    """What a record says; one that is not signed is not passed on."""

    claim: Claim
    is_signed: bool


Read = Callable[[DeviceId, Record], Said | None]
"""Verifies and reads a record that a peer sent; None if it is forged or broken."""

_FIRST, _LAST = DeviceId("0" * 64), DeviceId("f" * 64)
# So many records are sent for one digest: a session's queue of control is bounded.
_ANSWERED = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often things are said; seconds.

    Attributes:
        apart: our own records are at least so far apart.
        active: how often an active fetcher says so again.
        idle: how often anybody else does, at the earliest; at twice that the latest.
        forget: a member that was not heard of for so long is gone.
        digest: how often records are compared with one neighbour.
        gather: for so long at most news that nobody waits for are gathered.
        small: in a site of so many members or fewer all news are passed on at once.
        members: how many are known at most.
        burst: records of one member taken at once; afterwards one each `apart`.

    """

    apart: float = 0.25
    active: float = 1.0
    idle: float = 30.0
    forget: float = 150.0
    digest: float = 5.0
    gather: float = 1.0
    small: int = 16
    members: int = 4096
    burst: float = 8.0


class Heard(Enum):
    """What became of a record that came."""

    NEWS = "it is passed on"
    KNOWN = "that or something later was known"
    TOO_MUCH = "its member says more than members do; it counts later, or never"
    FORGED = "its member never said that: whoever sent it lies"


class Member(NamedTuple):
    """What is known of a member; `age` is how long ago it said that."""

    id: DeviceId
    claim: Claim
    age: float


@dataclass(slots=True)
class _Entry:
    """A record and what is in it; `said` is when, by our clock."""

    record: Record
    claim: Claim
    is_signed: bool
    said: float
    tokens: float
    counted: float

    @property
    def version(self) -> tuple[int, int]:
        return self.record.epoch, self.record.seq


class Gossip:
    """All members' records, and who is to be told which."""

    def __init__(
        self,
        me: DeviceId,
        *,
        epoch: int,
        rng: Random,
        sign: Sign,
        read: Read,
        place: bytes = b"",
        pace: Pace | None = None,
    ) -> None:
        """Know nobody and have no sessions.

        Args:
            me: our own device id.
            epoch: a counter that outlives the process, greater than at the last start.
            rng: chooses whom to tell; used by nobody else.
            sign: makes the body of our own record.
            read: verifies and reads somebody else's.
            place: ours in the ring; by default that of our id.
            pace: how often things are said.

        """
        self.me = me
        self.epoch = epoch
        self.seq = 0
        self._rng = rng
        self._sign = sign
        self._read = read
        self._pace = pace or Pace()
        place = place or bytes.fromhex(me)
        self._spread = Spread(place, rng, gather=self._pace.gather)
        self._entries: dict[DeviceId, _Entry] = {}
        self._order: list[DeviceId] = []
        self._digests: dict[DeviceId, Digest] = {}
        self._changed: dict[DeviceId, None] = {}
        self._claim: Claim | None = None
        self._is_unsaid = False
        self._refresh = 0.0
        self._compare: float | None = None
        self._sweep = 0.0

    def __repr__(self) -> str:
        return (
            f"<Gossip {self.me[:8]} {self.epoch}.{self.seq}: {len(self._entries)} "
            f"records, {len(self._spread.sessions)} sessions>"
        )

    # -- sessions ----------------------------------------------------------------------

    def joined(
        self,
        peer: DeviceId,
        now: float,
        *,
        seen: tuple[int, int],
        place: bytes = b"",
    ) -> None:
        """Take a session.

        `seen` is what the peer's HELLO says that it last saw of us, `place` where it is
        in the ring; by default that of its id.
        """
        self._spread.joined(peer, place or bytes.fromhex(peer))
        # Nobody vouches for what HELLO says: an epoch is enough, and all it can cost.
        if seen > (self.epoch, self.seq) and seen[0] - self.epoch < 1 << 32:
            self._jump(seen[0])
        if self.me in self._entries:
            self._spread.tell(peer, self.me)
        if self._compare is None:
            self._compare = now

    def left(self, peer: DeviceId) -> None:
        """Take the end of a session; its device stays a member until it is gone."""
        self._spread.left(peer)
        self._digests.pop(peer, None)

    def seen(self, peer: DeviceId) -> tuple[int, int]:
        """Return epoch and seq of a peer's last record, for our HELLO to it."""
        entry = self._entries.get(peer)
        return entry.version if entry else (0, 0)

    # -- records -----------------------------------------------------------------------

    def publish(self, claim: Claim, *, is_urgent: bool = True) -> None:
        """Say this of ourselves from now on, as soon as the pace allows.

        What is not urgent is said when we speak next; each that speaks at once costs
        everybody some messages.
        """
        self._claim = claim
        said = self._entries.get(self.me)
        if is_urgent and said is not None and claim != said.claim:
            self._is_unsaid = True

    def receive(self, peer: DeviceId, record: Record, now: float) -> Heard:
        """Take a record from a session; what is known is not even verified."""
        former = self._entries.get(record.member)
        version = record.epoch, record.seq
        is_ours = record.member == self.me
        known = (self.epoch, self.seq) if is_ours else former and former.version
        if known == version:
            self._spread.is_known(peer, record.member)
        if (known and version <= known) or record.age >= self._pace.forget:
            return Heard.KNOWN
        tokens = self._count(former, now)
        if tokens < 0:
            return Heard.TOO_MUCH
        read = self._read(peer, record)
        if read is None:
            return Heard.FORGED
        if is_ours:
            # We said so before our state was lost.
            self._jump(record.epoch)
            return Heard.NEWS
        if former is None:
            self._make_room()
        said = now - record.age
        self._enter(_Entry(record, *read, said, tokens, now))
        self._changed[record.member] = None
        if read.is_signed:
            self._pass_on(record.member, peer, former, now)
        return Heard.NEWS

    def receive_digest(self, peer: DeviceId, digest: Digest, now: float) -> None:
        """Send what a neighbour lacks, and ask in return for what we lack."""
        theirs = {member: (epoch, seq) for member, epoch, seq in digest.versions}
        ours = dict.fromkeys(self._between(digest.first, digest.last))
        newer = (
            member
            for member in ours
            if theirs.get(member, (-1, 0)) < self._entries[member].version
            and self._age(member, now) < self._pace.forget
        )
        for member in islice(newer, _ANSWERED):
            self._spread.tell(peer, member)
        lacking = any(
            version > (self._entries[member].version if member in ours else (-1, 0))
            for member, version in theirs.items()
            if digest.first <= member <= digest.last
        )
        if lacking and not digest.is_answer and peer in self._spread.sessions:
            lists = [*ours], digest.first, digest.last
            self._digests[peer] = self._digest(*lists, True)

    def _jump(self, epoch: int) -> None:
        """Speak from a later epoch, so that what we say now counts."""
        self.epoch = epoch + 1
        self.seq = 0
        self._is_unsaid = self._claim is not None

    def _count(self, former: _Entry | None, now: float) -> float:
        if former is None:
            return self._pace.burst
        fresh = (now - former.counted) / self._pace.apart
        former.tokens = min(former.tokens + fresh, self._pace.burst)
        former.counted = now
        return former.tokens - 1

    def _make_room(self) -> None:
        if len(self._entries) >= self._pace.members:
            others = (entry for entry in self._entries if entry != self.me)
            self._forget(min(others, key=lambda member: self._entries[member].said))

    def _forget(self, member: DeviceId) -> None:
        del self._entries[member]
        del self._order[bisect_left(self._order, member)]
        self._changed[member] = None
        self._spread.forget(member)

    def _enter(self, entry: _Entry) -> None:
        member = entry.record.member
        if member not in self._entries:
            insort(self._order, member)
        self._entries[member] = entry

    # -- whom to tell ------------------------------------------------------------------

    def _pass_on(
        self,
        member: DeviceId,
        source: DeviceId | None,
        former: _Entry | None,
        now: float,
    ) -> None:
        is_awaited = (
            len(self._entries) <= self._pace.small
            or _is_awaited(self._entries[member].claim)
            or (former is not None and _is_awaited(former.claim))
        )
        self._spread.news(member, source, now, is_awaited=is_awaited)

    def _between(self, first: DeviceId, last: DeviceId) -> list[DeviceId]:
        order, entries = self._order, self._entries
        found = order[bisect_left(order, first) : bisect_right(order, last)]
        return [member for member in found if entries[member].is_signed]

    def _digest(
        self,
        members: list[DeviceId],
        first: DeviceId,
        last: DeviceId,
        is_answer: bool,  # noqa: FBT001 - as in the message
    ) -> Digest:
        """Return a digest of these, or of a random run of them if they are many."""
        spare = len(members) - MAX_DIGEST_VERSIONS
        if spare > 0:
            start = self._rng.randint(0, spare)
            first = members[start] if start else first
            end = start + MAX_DIGEST_VERSIONS
            last = members[end - 1] if end < len(members) else last
            members = members[start:end]
        versions = [Version(one, *self._entries[one].version) for one in members]
        return Digest(
            first=first, last=last, versions=tuple(versions), is_answer=is_answer
        )

    # -- time --------------------------------------------------------------------------

    def outgoing(self, now: float) -> list[tuple[DeviceId, Record | Digest]]:
        """Return what to send to whom now; each replaces what waits of its kind."""
        if now >= self._sweep:
            self._expire(now)
        own = self._own_due()
        if own is not None and now >= own:
            self._say(now)
        if self._compare is not None and now >= self._compare and self._spread.sessions:
            self._start_digest(now)
        out: list[tuple[DeviceId, Record | Digest]] = []
        for peer, member in self._spread.take(now):
            age = int(self._age(member, now))
            if age < self._pace.forget:
                record = self._entries[member].record
                if record.age != age:
                    record = replace(record, age=age)
                out.append((peer, record))
        out += self._digests.items()
        self._digests.clear()
        return out

    def next_timeout(self) -> float:
        """Return when to call `outgoing` though nothing happens."""
        own = self._own_due()
        times = [self._sweep, self._spread.next_timeout()]
        if own is not None:
            times.append(own)
        if self._compare is not None and self._spread.sessions:
            times.append(self._compare)
        return min(times)

    def _own_due(self) -> float | None:
        if self._claim is None:
            return None
        entry = self._entries.get(self.me)
        if entry is None:
            return 0.0
        return entry.said + self._pace.apart if self._is_unsaid else self._refresh

    def _say(self, now: float) -> None:
        assert self._claim is not None  # noqa: S101 - only then it is due
        pace = self._pace
        self.seq += 1
        self._is_unsaid = False
        claim = self._claim
        body = self._sign(self.me, self.epoch, self.seq, encode_claim(claim))
        record = Record(self.me, self.epoch, self.seq, body)
        former = self._entries.get(self.me)
        self._enter(_Entry(record, claim, True, now, pace.burst, now))
        idle = pace.idle * (1 + self._rng.random())
        self._refresh = now + (pace.active if claim.active else idle)
        self._pass_on(self.me, None, former, now)

    def _start_digest(self, now: float) -> None:
        members = self._between(_FIRST, _LAST)
        peer = self._rng.choice(self._spread.sessions)
        self._digests[peer] = self._digest(members, _FIRST, _LAST, False)
        self._compare = now + self._pace.digest

    def _age(self, member: DeviceId, now: float) -> float:
        return min(max(0.0, now - self._entries[member].said), MAX_RECORD_AGE)

    def _expire(self, now: float) -> None:
        self._sweep = now + self._pace.digest
        for member in list(self._entries):
            if member != self.me and self._age(member, now) >= self._pace.forget:
                self._forget(member)

    # -- what is known -----------------------------------------------------------------

    def members(self, now: float) -> list[Member]:
        """Return all members but ourselves."""
        return [
            Member(member, entry.claim, self._age(member, now))
            for member, entry in self._entries.items()
            if member != self.me
        ]

    def changes(self, now: float) -> list[tuple[DeviceId, Member | None]]:
        """Return who said something since the last call; None for who is gone."""
        found: list[tuple[DeviceId, Member | None]] = []
        for member in self._changed:
            entry = self._entries.get(member)
            if entry is None:
                found.append((member, None))
            else:
                age = self._age(member, now)
                found.append((member, Member(member, entry.claim, age)))
        self._changed.clear()
        return found


def _is_awaited(claim: Claim) -> bool:
    """Tell whether others wait to hear it: it uses the origin, or will soon."""
    is_about_to = claim.wants and claim.origin is OriginState.OK
    return bool(claim.active or claim.busy_seconds or is_about_to)
