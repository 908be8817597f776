"""Which members of a site one device keeps sessions with; sans-IO.

In a small site everybody meets everybody. In a larger one a device keeps sessions with

* the two members before it and the two behind it in the ring of all instances: this
  alone connects the whole site, whatever the rest is;
* some that it chose at random, which keeps paths short and makes it hard to surround
  a device with strangers: nobody else decides whom it chooses;
* those that chose it, as long as there is room. Who is refused tries others.

Nothing is ended to make room for somebody better, only what stands in the way of the
ring and what the ring needs no more; so sessions do not come and go in turns. Times are
the caller's, in seconds.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

# With so many others or fewer, everybody meets everybody.
MESH_MEMBERS = 16
# Members of the ring on either side.
RING_EACH = 2
# Those that a device chooses at random; on average as many choose it.
CHOSEN = 6
# What the ring needs no more is ended above the first, who dials is refused from the
# second on, unless it is of the ring.
USUAL_SESSIONS = 16
MOST_SESSIONS = 20
# Who is not known by other means may know nobody else, and is not sent away so soon.
MOST_STRANGERS = 64
# Who could not be reached is tried again after so long, twice as long each time. A cut
# link may be whole again at any time, and a try is one packet.
RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 8.0
# Who refused is not asked again so soon.
REFUSED_SECONDS = 15.0
MAX_REFUSED_SECONDS = 60.0
# After a refusal the next choice waits, twice as long each time, but not for long:
# somebody else has room, for on average a device has fewer than the most.
CHOOSE_AGAIN_SECONDS = 0.25
MAX_CHOOSE_AGAIN_SECONDS = 4.0


class End(Enum):
    """How it went with somebody."""

    MET = "there was a session"
    REFUSED = "one of both has sessions enough"
    SLOW = "it is there, but no session came of it"
    FAILED = "nobody was reached"


_FAILURES = (End.SLOW, End.FAILED)


class Why(Enum):
    """What a session is good for."""

    RING = "it is next to us in the ring"
    CHOSEN = "we chose it"
    GUEST = "it chose us"
    STRANGER = "it is known by its session alone"


@dataclass(slots=True)
class _Candidate:
    """Somebody who can be dialled; who refused us is not chosen again so soon."""

    not_before: float
    choose_after: float = 0.0
    pause: float = RETRY_SECONDS
    is_dialled: bool = False
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a session is kept, and which one is ended for it."""

    is_granted: bool
    instead_of: bytes | None = None


class Overlay:
    """The members known to one device, and its sessions with some of them."""

    def __init__(self, me: bytes, rng: Random) -> None:
        """Begin alone; members are known by ids of one length, such as instances."""
        self._me = me
        self._rng = rng
        self._candidates: dict[bytes, _Candidate] = {}
        self._sessions: dict[bytes, Why] = {}
        self._order: list[bytes] = []
        self._choose_after = 0.0
        self._choose_pause = CHOOSE_AGAIN_SECONDS

    def __repr__(self) -> str:
        return f"<Overlay {len(self._sessions)} of {len(self._candidates)}>"

    @property
    def members(self) -> Collection[bytes]:
        """All members that can be dialled."""
        return self._candidates.keys()

    # -- who is there ----------------------------------------------------------------

    def found(self, who: bytes, not_before: float) -> None:
        """Know a member that may be dialled from some time on; or that it moved."""
        known = self._candidates.get(who)
        if known is None:
            self._candidates[who] = _Candidate(not_before)
            insort(self._order, who)
        elif not known.is_dialled:
            self._candidates[who] = _Candidate(min(known.not_before, not_before))
        if self._sessions.get(who) is Why.STRANGER:
            self._sessions[who] = self._reason(who, ours=False)

    def lost(self, who: bytes) -> None:
        """Forget a member; a session with it goes on."""
        if self._candidates.pop(who, None) is not None:
            del self._order[bisect_left(self._order, who)]

    # -- whom to dial ----------------------------------------------------------------

    def dials(self, now: float) -> list[bytes]:
        """Return whom to dial now; each is under way until `dialled` is called."""
        due = [
            who
            for who, candidate in self._candidates.items()
            if candidate.not_before <= now and self._is_free(who)
        ]
        if len(self._order) > MESH_MEMBERS:
            due = self._pick(due, now)
        for who in due:
            self._candidates[who].is_dialled = True
        return due

    def _pick(self, due: list[bytes], now: float) -> list[bytes]:
        """Return those of the ring, and as many others as there is room for."""
        ring = self.ring()
        nominal = self._ring(_everybody)
        # Those that failed are passed over in the ring, but not for ever.
        picked = [who for who in due if who in nominal or who in ring]
        under_way = {w for w, each in self._candidates.items() if each.is_dialled}
        under_way -= self._sessions.keys()
        chosen = len(self._chosen(ring)) + len(under_way - ring)
        room = MOST_SESSIONS - len(self._sessions) - len(under_way) - len(picked)
        count = min(CHOSEN - chosen, room)
        if count <= 0 or now < self._choose_after:
            return picked
        others = [
            who
            for who in due
            if who not in ring and self._candidates[who].choose_after <= now
        ]
        return picked + self._rng.sample(others, min(count, len(others)))

    def _chosen(self, ring: Collection[bytes]) -> list[bytes]:
        """Return those we meet by our own choice and would not meet otherwise."""
        return [
            who
            for who, why in self._sessions.items()
            if why is Why.CHOSEN and who not in ring
        ]

    def _is_free(self, who: bytes) -> bool:
        return not self._candidates[who].is_dialled and who not in self._sessions

    def next_time(self, now: float) -> float:
        """Return when `dials` may have more than now, if nothing happens before."""
        times = [
            candidate.not_before
            for who, candidate in self._candidates.items()
            if candidate.not_before > now and self._is_free(who)
        ]
        if self._choose_after > now:
            times.append(self._choose_after)
        return min(times, default=inf)

    def dialled(self, who: bytes, end: End, now: float) -> None:
        """Note that dialling is over and how it went, sessions that came of it too."""
        if end is End.REFUSED:
            self._choose_after = now + self._choose_pause
            pause = min(self._choose_pause * 2, MAX_CHOOSE_AGAIN_SECONDS)
            self._choose_pause = pause
        elif end is End.MET:
            self._choose_pause = CHOOSE_AGAIN_SECONDS
        candidate = self._candidates.get(who)
        if candidate is not None:
            candidate.is_dialled = False
            candidate.has_failed = end in _FAILURES and who not in self._sessions
            self._put_off(candidate, end, now)

    def _put_off(self, candidate: _Candidate, end: End, now: float) -> None:
        if end is End.MET:
            candidate.pause = RETRY_SECONDS
        elif end is End.REFUSED:
            candidate.choose_after = now + max(candidate.pause, REFUSED_SECONDS)
        candidate.not_before = now + candidate.pause
        if end is not End.MET:
            is_refused = end is End.REFUSED
            most = MAX_REFUSED_SECONDS if is_refused else MAX_RETRY_SECONDS
            candidate.pause = min(candidate.pause * 2, most)

    # -- the ring --------------------------------------------------------------------

    def ring(self) -> set[bytes]:
        """Return who is next to us in the ring, as far as is known."""
        return self._ring(self._is_there)

    def _ring(self, counts: Callable[[bytes], bool]) -> set[bytes]:
        at = bisect_left(self._order, self._me)
        behind = self._order[at:] + self._order[:at]
        return {
            who
            for side in (behind, reversed(behind))
            for who in islice(filter(counts, side), RING_EACH)
        }

    def _is_there(self, who: bytes) -> bool:
        return who in self._sessions or not self._candidates[who].has_failed

    # -- sessions --------------------------------------------------------------------

    def admit(self, who: bytes, spare: Collection[bytes], *, ours: bool) -> Admission:
        """Decide about a session that is about to come up.

        Args:
            who: the member.
            spare: sessions that nobody uses just now.
            ours: whether we dialled.

        """
        if ours or who in self._sessions:
            return Admission(is_granted=True)
        if who not in self._candidates:
            strangers = sum(why is Why.STRANGER for why in self._sessions.values())
            return Admission(is_granted=strangers < MOST_STRANGERS)
        if len(self._sessions) < MOST_SESSIONS:
            return Admission(is_granted=True)
        ring = self.ring()
        if who not in ring:
            return Admission(is_granted=False)
        return Admission(is_granted=True, instead_of=self._dispensable(ring, spare))

    def _dispensable(
        self, ring: Collection[bytes], spare: Collection[bytes]
    ) -> bytes | None:
        kept = set(ring)
        chosen = self._chosen(ring)
        if len(chosen) <= CHOSEN:
            kept.update(chosen)
        found = [
            who
            for who, why in self._sessions.items()
            if who in spare and who not in kept and why is not Why.STRANGER
        ]
        return self._rng.choice(found) if found else None

    def up(self, who: bytes, *, ours: bool) -> None:
        """Note a session; `ours` if we dialled."""
        self._sessions.setdefault(who, self._reason(who, ours=ours))

    def _reason(self, who: bytes, *, ours: bool) -> Why:
        if who not in self._candidates:
            return Why.CHOSEN if ours else Why.STRANGER
        if len(self._order) > MESH_MEMBERS and who in self.ring():
            return Why.RING
        return Why.CHOSEN if ours else Why.GUEST

    def down(self, who: bytes, end: End, now: float) -> None:
        """Note that there is no session with a member any more, and how it ended."""
        if self._sessions.pop(who, None) is not None and who in self._candidates:
            self._put_off(self._candidates[who], end, now)

    def superfluous(self, spare: Collection[bytes]) -> bytes | None:
        """Return a session that should be ended, if there is one."""
        if len(self._sessions) <= USUAL_SESSIONS:
            return None
        ring = self.ring()
        if len(self._sessions) > MOST_SESSIONS:
            return self._dispensable(ring, spare)
        if not ring <= self._sessions.keys():
            return None
        for who, why in self._sessions.items():
            if why is Why.RING and who in spare and who not in ring:
                return who
        return None


def _everybody(_: bytes) -> bool:
    return True
