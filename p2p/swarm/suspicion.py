"""Who of a committee gets on with nothing, so that others take what it is to fetch.

What a neighbour brings of its shards, or is believed to be fetching, speaks for it. Of
other members we see only what arrives of their shards, whoever brought it; so once they
are suspected only what they fetch speaks for them. If nobody gets on it is the origin
that is slow, or gone, and nobody is suspected.
"""

from __future__ import annotations

from statistics import median_low

from p2p.swarm.bits import less
from p2p.swarm.membership import Member
from p2p.swarm.ownership import Ownership
from p2p.swarm.site import Site
from p2p.wire.messages import DeviceId

_PAUSE = 1.0
# The least time after which one is suspected who brings nothing, and the same as a
# multiple of how long it is since half of the others brought something.
_STANDS = 3.0
_USUAL = 8


class Suspicion:
    """Watches the owners of what we wait for."""

    def __init__(self, site: Site, ownership: Ownership) -> None:
        self._site = site
        self._ownership = ownership
        self._left: dict[DeviceId, int] = {}
        self._moved: dict[DeviceId, float] = {}
        self._checked = 0.0

    def __repr__(self) -> str:
        return f"<Suspicion {len(self._left)} owners>"

    def is_due(self, now: float) -> bool:
        """Tell whether it is time to look again."""
        return now >= self._checked + _PAUSE

    def deadline(self) -> float | None:
        """Return when to look again; None if we wait for nobody."""
        return self._checked + _PAUSE if any(self._left.values()) else None

    def brought(self, bits: int, by: Member, now: float) -> None:
        """Note that a member has what nobody else is known to have."""
        if bits & self._ownership.owned_by(by.id):
            by.proved = now

    def review(self, needed: int, moved: float, now: float) -> None:
        """Suspect who stands still while others get on.

        Args:
            needed: objects that only the origin can give, of others too.
            moved: when we last got something from it.
            now: the time.

        """
        self._checked = now
        before, self._left = self._left, {}
        owners = [
            member
            for member in self._site.members.candidates()
            if self._ownership.owned_by(member.id)
        ]
        for member in owners:
            left = needed & self._ownership.owned_by(member.id)
            self._left[member.id] = left
            gained = less(before.get(member.id, 0), left)
            if member.id in self._site.neighbours:
                gained = member.proved > self._moved.get(member.id, 0.0)
            is_moving = gained or not left or member.id not in self._moved
            if is_moving and not member.stands:
                self._moved[member.id] = now
            elif member.proved > self._moved[member.id]:
                self._moved[member.id] = member.proved
        ages = {member: now - self._moved[member.id] for member in owners}
        usual = median_low([*ages.values(), now - moved])
        for member, age in ages.items():
            stands = age > max(_STANDS, _USUAL * usual)
            # Whoever was suspected is trusted again for what it does, not because
            # the others have come to a standstill too.
            stands |= member.stands and age > _STANDS
            if stands is not member.stands:
                member.stands = stands
                self._site.members.version += 1
