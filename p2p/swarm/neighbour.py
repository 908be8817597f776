"""What is known of one neighbour: what it has, what it owes us, how it behaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from p2p.ostree.objects import Checksum
from p2p.swarm.bits import less
from p2p.swarm.meter import Meter
from p2p.wire.messages import DeviceId, Held, RequestId

# Bits of units announced before their object's hashes are known, per neighbour.
_EARLY_UNITS = 1 << 20

# How long what a giver has just given away is left to whoever got it.
_REFERRED = 1.0
# How much the last answer counts for what may be expected of the next.
_LUCK_WEIGHT = 0.25
_LEAST_LUCK = 0.25


class Kind(Enum):
    """What a request asks for."""

    ASK = "which objects"
    WATCH = "map of a commit"
    BATCH = "objects"
    HASHES = "unit hashes"
    UNIT = "unit"


GIVING = frozenset({Kind.BATCH, Kind.UNIT, Kind.HASHES})
"""Requests that another neighbour could fulfil."""


@dataclass(slots=True, eq=False)
class Request:
    """A request without its terminal answer.

    Attributes:
        items: what is still due, in the order asked for.
        left: bytes still expected.
        delivered: how many items came.
        first: for HASHES, the first unit asked about.
        names: what it counts for among the names that may be asked for at once.
        cancelled: we asked to withdraw it; what it still brings is welcome.
        lapsed: it is not waited for, so that what it owes may be asked elsewhere.

    """

    id: RequestId
    kind: Kind
    items: dict[int, None] = field(default_factory=dict)
    left: int = 0
    delivered: int = 0
    first: int = 0
    names: int = 0
    commit: Checksum | None = None
    cancelled: bool = False
    lapsed: bool = False

    @property
    def is_due(self) -> bool:
        """Tell whether objects are waited for."""
        return self.kind in GIVING and not (self.cancelled or self.lapsed)


@dataclass(slots=True, eq=False)
class Neighbour:
    """One session's other side.

    Attributes:
        max_requests, max_names: how much it lets us leave open.
        held: the commits it shares, and how much of each.
        mapped: commits whose map it sent and keeps up to date.
        unmapped: commits it would not send a map of.
        announced: items it said it has, by name.
        implied: items it has because of the commits it holds.
        absent: items it said it has not, since it last said it had.
        lists: large objects it has units of, so that it knows their hashes.
        early: units of large objects whose hashes we do not know yet.
        refused: items it would not give whole because they are too large, it said.
        whole: items it said are small enough to be given whole.
        hinted: items whose size it told.
        asked: items below this number were asked about once.
        outstanding: bytes expected of requests that are waited for.
        heard: when it last said anything while a request waited.
        fed: when it last sent content while a request waited.
        gap: how long it sent none before that, or did not long ago.
        queued: how much it said it sends before what we asked for.
        shrunk: when that last got less.
        stalled: since when it is not waited for any more.
        is_lost: so long that it is not counted on for what it has.
        referring: since when it has referred us to others, having given nothing yet.
        is_suspect: silent so long that others take over what it would fetch.
        stalls: how often in a row.
        faults: claims it did not fulfil.
        delivered: verified bytes it gave.
        served: objects and units it gave.
        learned: grows whenever we learn what it has.
        starved: what we knew when it had nothing to ask for.
        starved_until: when that is looked at again though we know no more.
        luck: which part of what it was asked for it did not refer to others.
        spared: since when we leave it alone, as others have all it has for us.
        lot: drawn anew with each request; breaks ties.
        credited: bytes of its progress that we believed.

    """

    id: DeviceId
    max_requests: int
    max_names: int
    held: dict[Checksum, Held] = field(default_factory=dict)
    mapped: dict[Checksum, None] = field(default_factory=dict)
    unmapped: dict[Checksum, None] = field(default_factory=dict)
    announced: int = 0
    implied: int = 0
    absent: int = 0
    lists: int = 0
    early: dict[int, int] = field(default_factory=dict)
    refused: int = 0
    whole: int = 0
    hinted: int = 0
    asked: int = 0
    polled: float = 0.0
    poll_from: int = 0
    deferred: list[tuple[float, int]] = field(default_factory=list)

    requests: dict[RequestId, Request] = field(default_factory=dict)
    waiting: int = 0
    outstanding: int = 0
    meter: Meter = field(default_factory=Meter)

    heard: float = 0.0
    fed: float = 0.0
    gap: float = 0.0
    queued: int | None = None
    shrunk: float = 0.0
    stalled: float | None = None
    is_lost: bool = False
    referring: float | None = None
    is_suspect: bool = False
    stalls: int = 0
    rest: float = 0.0
    snubbed: bool = False
    faults: int = 0
    delivered: int = 0
    served: int = 0
    learned: int = 0
    starved: int = -1
    starved_until: float = 0.0
    luck: float = 1.0
    spared: float | None = None
    lot: float = 0.0

    credited: int = 0

    def __repr__(self) -> str:
        mood = "stalled" if self.stalled is not None else "live"
        if self.snubbed:
            mood += ", snubbed"
        return (
            f"<Neighbour {self.id[:8]} {mood}, {self.waiting} requests, "
            f"{self.outstanding} bytes due at {self.meter.rate():.0f}/s>"
        )

    # -- what it has ---------------------------------------------------------------

    @property
    def holds(self) -> int:
        """The items it claims to have and did not deny."""
        return less(self.announced | self.implied, self.absent)

    def offers(self, now: float) -> int:
        """Return what it may be asked for now: some is put off for a while."""
        bits = self.holds
        self.expire(now)
        for _, later in self.deferred:
            bits = less(bits, later)
        return bits

    def defer(self, bits: int, until: float) -> None:
        """Do not ask it for these before a time."""
        self.deferred.append((until, bits))

    def expire(self, now: float) -> None:
        """Forget what was put off until now."""
        if self.deferred and any(until <= now for until, _ in self.deferred):
            self.deferred = [entry for entry in self.deferred if entry[0] > now]
            self.learned += 1

    def announce(self, bits: int) -> None:
        """Note that it says it has these."""
        self.announced |= bits
        self.absent = less(self.absent, bits)
        self.learned += 1

    def announce_early(self, item: int, units: int) -> None:
        """Note which units it has of an object that has no unit items yet."""
        self.learned += 1
        self.early.pop(item, None)
        known = sum(bits.bit_length() for bits in self.early.values())
        if units and known + units.bit_length() <= _EARLY_UNITS:
            self.early[item] = units

    def ask_again(self, request: Request) -> None:
        """Note that it was not told what it has of what an ASK was about."""
        self.asked = min(self.asked, min(request.items, default=self.asked))

    def deny(self, bits: int) -> None:
        """Note that it says it has not these."""
        self.absent |= bits
        self.lists = less(self.lists, bits)

    def covered(self, members: dict[Checksum, int]) -> int:
        """Return the items of which we know without asking whether it has them."""
        bits = 0
        for commit, items in members.items():
            if commit in self.mapped or self.held.get(commit) is Held.COMPLETE:
                bits |= items
        return bits

    # -- what it may be asked ------------------------------------------------------

    def allows(self, names: int, *, spare: int) -> bool:
        """Tell whether so many names may be asked for now, `spare` more left aside."""
        waiting = self.requests.values()
        asked = sum([request.names for request in waiting])
        return (
            len(waiting) + 1 < self.max_requests
            and asked + names + spare <= self.max_names
        )

    def ask_limit(self, most: int) -> int:
        """Return how many names one ASK may carry, so that others have room beside."""
        return min(most, self.max_names // 2)

    # -- how it behaves ------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Tell whether it is worth waiting for."""
        return self.stalled is None

    @property
    def is_doubtful(self) -> bool:
        """Tell whether it breaks its word too often to be asked first."""
        return self.faults > 3 + self.served // 8

    def refer(self, asked: int, bits: int, now: float) -> None:
        """Note that of so many things asked for it gave some to others."""
        part = max(1 - bits.bit_count() / asked, _LEAST_LUCK)
        self.luck += _LUCK_WEIGHT * (part - self.luck)
        if bits:
            self.defer(bits, now + _REFERRED)
            if self.referring is None:
                self.referring = now

    @property
    def owes_content(self) -> bool:
        """Tell whether objects or units are waited for, which take no long search."""
        for request in self.requests.values():
            if request.kind is not Kind.HASHES and request.is_due:
                return True
        return False

    @property
    def owes_late(self) -> bool:
        """Tell whether it may still bring what is not waited for any more."""
        return any(request.lapsed for request in self.requests.values())

    def eta(self) -> float:
        """Return seconds until it has delivered everything, 0 if unknown."""
        rate = self.meter.rate()
        return self.outstanding / rate if rate else 0.0

    def wants(self) -> tuple[Checksum, ...]:
        """Return the commits it has begun and not finished."""
        return tuple(
            commit for commit, held in self.held.items() if held is not Held.COMPLETE
        )
