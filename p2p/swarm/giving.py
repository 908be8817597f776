"""Who was given what: each thing leaves its only source once, and spreads from there.

While a site's only source of something gives it to one neighbour after the other, all
wait for its uplink. So it gives each thing to one of them, and tells the others for a
while that it went elsewhere: they take something else, and this from whoever got it. A
thing is given again when that one left, or after so long that it should have spread.
Who too often does not spread what it gets is given things, but counts for nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from p2p.ostree.objects import ObjectName
from p2p.swarm.action import Accept, AcceptUnit, Action, Assemble
from p2p.wire.limits import UNIT_BYTES
from p2p.wire.messages import DeviceId

Thing = tuple[ObjectName, int]
"""A unit of a large object, by its number; or an object as a whole, as -1."""

WHOLE = -1

# What was given should have spread after so many times as long as giving a unit takes.
_SPREAD = 16.0
# A unit takes about so long, before it was measured.
_FIRST_SECONDS = 0.25
_LEAST_HOLD = 2.0
_LONGEST_HOLD = 30.0
# Shorter answers take as long as the way, whatever the link carries.
_MEASURABLE_BYTES = 32 << 10
_MEASURED = 15
# So many things, and one in so many, may fail to spread without blame.
_FORGIVEN = 8
_FORGIVEN_SHARE = 8
# More than one update has. What is forgotten is given once again, no less.
_MOST_RELAYED = 1 << 18


@dataclass(slots=True)
class _Gift:
    """Who got something, and when it was asked for or, later, given."""

    taker: DeviceId
    time: float


@dataclass(slots=True)
class _Taker:
    """How many things a neighbour was given, and how many did not spread."""

    given: int = 0
    kept: int = 0

    @property
    def is_hoarder(self) -> bool:
        return self.kept > _FORGIVEN + self.given // _FORGIVEN_SHARE


class Giving:
    """The ledger of one device that gives.

    No method may be called from two threads.
    """

    def __init__(self) -> None:
        self._gifts: dict[Thing, _Gift] = {}
        self._takers: dict[DeviceId, _Taker] = {}
        self._relayed: dict[Thing, None] = {}
        self._seconds: deque[float] = deque(maxlen=_MEASURED)

    def __repr__(self) -> str:
        return f"<Giving {len(self._gifts)} things, held for {self.hold:.1f} s>"

    @property
    def hold(self) -> float:
        """How long what was given away is not given to another."""
        usual = _FIRST_SECONDS
        if self._seconds:
            usual = sorted(self._seconds)[len(self._seconds) * 3 // 4]
        return min(max(_LEAST_HOLD, _SPREAD * usual), _LONGEST_HOLD)

    def note(self, action: Action) -> None:
        """Learn what came from a neighbour: others have it, and we give it freely."""
        match action:
            case Accept(names, giver) if giver is not None:
                self._relayed.update(dict.fromkeys((name, WHOLE) for name in names))
            case Assemble(name):
                self._relayed[name, WHOLE] = None
            case AcceptUnit(name, unit):
                self._relayed[name, unit] = None
        while len(self._relayed) > _MOST_RELAYED:
            del self._relayed[next(iter(self._relayed))]

    def claim(self, thing: Thing, taker: DeviceId, now: float) -> DeviceId | None:
        """Give something to a neighbour, or return who got it a moment ago."""
        if thing in self._relayed:
            return None
        gift = self._gifts.pop(thing, None)
        if gift is not None and gift.taker != taker:
            age = now - gift.time
            if age < self.hold:
                self._gifts[thing] = gift
                return gift.taker
            if age < _LONGEST_HOLD:
                self._blame(gift.taker)
        self._forget(now)
        record = self._takers.setdefault(taker, _Taker())
        record.given += 1
        if not record.is_hoarder:
            self._gifts[thing] = _Gift(taker, now)
        return None

    def _forget(self, now: float) -> None:
        """Forget the oldest things that were spread, or not, long ago."""
        while self._gifts:
            oldest = next(iter(self._gifts))
            if now < self._gifts[oldest].time + _LONGEST_HOLD:
                break
            del self._gifts[oldest]

    def _blame(self, taker: DeviceId) -> None:
        record = self._takers.setdefault(taker, _Taker())
        record.kept += 1
        if record.is_hoarder:
            self._release(taker)

    def _release(self, taker: DeviceId) -> None:
        """Let others have everything that one neighbour got."""
        for thing in [t for t, gift in self._gifts.items() if gift.taker == taker]:
            del self._gifts[thing]

    def sent(
        self, things: Sequence[Thing], taker: DeviceId, size: int, now: float
    ) -> None:
        """Note that things were given completely; from now on they can spread."""
        gifts = [self._gifts.get(thing) for thing in things]
        ours = [gift for gift in gifts if gift is not None and gift.taker == taker]
        if ours and size >= _MEASURABLE_BYTES:
            self._seconds.append((now - ours[0].time) * UNIT_BYTES / size)
        for gift in ours:
            gift.time = now

    def withdraw(self, things: Iterable[Thing], taker: DeviceId) -> None:
        """Note that a neighbour did not want these any more before they were given."""
        for thing in things:
            gift = self._gifts.get(thing)
            if gift is not None and gift.taker == taker:
                del self._gifts[thing]

    def left(self, taker: DeviceId) -> None:
        """Give again what a neighbour got that is not there any more."""
        self._release(taker)
        self._takers.pop(taker, None)
