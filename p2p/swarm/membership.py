"""Who else is on the site, neighbour or not, and what they say they do at the origin.

A member is a candidate for the origin while it gets a commit and may use the origin.
It is not counted on once its session broke and it said nothing since, or if it was
fetching and has fallen silent: an active fetcher says so every second. It counts again
as soon as it says something.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from p2p.wire.messages import DeviceId
from p2p.wire.record import Claim, CommitTag, Lease, OriginState

# One member must not stop a site for long.
_LONGEST_BUSY = 60.0
# More are not kept; `gossip` knows no more either.
_MAX_MEMBERS = 4096


@dataclass(slots=True, eq=False)
class Member:
    """One device of the site as its last record tells.

    Attributes:
        wants: the commits it is getting.
        complete: the commits it has.
        origin: whether it may fetch from the origin.
        origin_until: if that is BUSY, until when; afterwards it is OK.
        active: what it fetches, and how many bytes of it came.
        heard: when it said so.
        lost: when its session to us ended, None if it is up or never was.
        progressed: when it last got something we need.
        credited: bytes of progress that were believed.
        proved: when it last did what it is to do there.
        is_counted_on: whether it is there, so that others wait for what it is to fetch.
        stands: whether it gets on with nothing though others do.

    """

    id: DeviceId
    wants: tuple[CommitTag, ...] = ()
    complete: tuple[CommitTag, ...] = ()
    origin: OriginState = OriginState.OK
    origin_until: float = 0.0
    active: dict[Lease, int] = field(default_factory=dict)
    heard: float = 0.0
    lost: float | None = None
    progressed: float = 0.0
    credited: int = 0
    proved: float = 0.0
    stands: bool = False
    is_counted_on: bool = True

    def __repr__(self) -> str:
        mood = "live" if self.is_counted_on else "silent"
        return f"<Member {self.id[:8]} {mood}, {len(self.active)} fetches>"

    @property
    def is_candidate(self) -> bool:
        """Tell whether it takes part in who fetches what, if it is there.

        Who is through keeps its part: what it fetched is still on its way to others.
        """
        return bool(self.complete or (self.wants and self.may_fetch))

    @property
    def may_fetch(self) -> bool:
        """Tell whether the origin is there for it."""
        return self.origin in {OriginState.OK, OriginState.BUSY}

    def silent_at(self, suspicion: float) -> float:
        """Return when it is not counted on any more if it says nothing."""
        at = inf
        if self.lost is not None and self.heard <= self.lost:
            at = self.lost + suspicion
        if self.active:
            at = min(at, self.heard + 2 * suspicion)
        return at


class Members:
    """All members but ourselves.

    Attributes:
        version: grows whenever it changes who is a candidate, or counted on.
        busy_until: until when the origin wants to be left alone, as members say.

    """

    def __init__(self, suspicion: float) -> None:
        self.version = 0
        self.busy_until = 0.0
        self._suspicion = suspicion
        self._members: dict[DeviceId, Member] = {}
        self._due = inf

    def __repr__(self) -> str:
        return f"<Members {len(self._members)}>"

    @property
    def count(self) -> int:
        """How many members are known."""
        return len(self._members)

    def get(self, member: DeviceId) -> Member | None:
        """Return what a member said, None if it never said anything."""
        return self._members.get(member)

    def candidates(self) -> list[Member]:
        """Return who takes part in who fetches what, counted on or not."""
        return [m for m in self._members.values() if m.is_candidate]

    def said(self, who: DeviceId, claim: Claim, age: float, now: float) -> Member:
        """Take what a member says, `age` seconds ago, in place of what it said."""
        member = self._members.get(who)
        if member is None:
            if len(self._members) >= _MAX_MEMBERS:
                self.gone(next(iter(self._members)))
            member = self._members[who] = Member(who, progressed=now)
        before = _standing(member)
        was_busy = member.origin is OriginState.BUSY
        member.wants = claim.wants
        member.complete = claim.complete
        member.origin = claim.origin
        member.origin_until = now - age + claim.busy_seconds
        member.active = dict(claim.active)
        member.heard = max(member.heard, now - age)
        member.is_counted_on = now < member.silent_at(self._suspicion)
        if before != _standing(member):
            self.version += 1
        if was_busy or member.origin is OriginState.BUSY:
            self.busy_until = self._find_busy_until()
        self._due = min(self._due, member.silent_at(self._suspicion))
        return member

    def _find_busy_until(self) -> float:
        return max(
            (
                min(member.origin_until, member.heard + _LONGEST_BUSY)
                for member in self._members.values()
                if member.origin is OriginState.BUSY
            ),
            default=0.0,
        )

    def gone(self, who: DeviceId) -> None:
        """Forget a member."""
        if self._members.pop(who, None) is not None:
            self.version += 1

    def met(self, who: DeviceId) -> None:
        """Note that there is a session with a member."""
        member = self._members.get(who)
        if member is not None:
            member.lost = None

    def lost(self, who: DeviceId, now: float) -> None:
        """Note that there is none any more."""
        member = self._members.get(who)
        if member is not None:
            member.lost = now
            self._due = min(self._due, now + self._suspicion)

    def review(self, now: float) -> None:
        """Count no more on who has fallen silent."""
        if now < self._due:
            return
        self._due = inf
        for member in self._members.values():
            at = member.silent_at(self._suspicion)
            if member.is_counted_on != (now < at):
                member.is_counted_on = now < at
                self.version += member.is_candidate
            if at > now:
                self._due = min(self._due, at)

    def deadline(self) -> float | None:
        """Return when `review` has something to do; None for never."""
        return None if self._due == inf else self._due


def _standing(member: Member) -> object:
    state = member.origin, member.is_counted_on
    return member.wants, member.complete, state
