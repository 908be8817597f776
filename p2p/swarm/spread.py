"""To which sessions news of a member are passed on, and when; sans-IO.

News that others wait for go out at once: to the two sessions next to us in the ring of
all devices, which keeps all connected, and to two at random, which makes it quick. So
everybody hears them about four times. All other news are gathered for a moment, and go
to the two of the ring and to one at random every other time. A neighbour that tells us
meanwhile needs not be told, so those are heard about one and a half times, many in one
packet.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from math import inf
from typing import TYPE_CHECKING

from p2p.wire.messages import DeviceId

if TYPE_CHECKING:
    from random import Random

# To how many sessions beside the ring news go at once, and how likely others to one.
_CHORDS = 2
_LATER_CHORD = 0.5


class Spread:
    """What waits to be told to whom.

    Attributes:
        sessions: who can be told something.

    """

    def __init__(self, place: bytes, rng: Random, *, gather: float) -> None:
        """Have no sessions.

        Args:
            place: ours in the ring.
            rng: chooses whom to tell.
            gather: for how many seconds at most what nobody waits for is gathered.

        """
        self.sessions: list[DeviceId] = []
        self._place = place
        self._rng = rng
        self._gather = gather
        self._ring: list[tuple[bytes, DeviceId]] = []
        self._places: dict[DeviceId, bytes] = {}
        self._now: dict[tuple[DeviceId, DeviceId], None] = {}
        self._later: dict[tuple[DeviceId, DeviceId], None] = {}
        self._due = inf

    def __repr__(self) -> str:
        return f"<Spread {len(self._now)} now, {len(self._later)} later>"

    def joined(self, peer: DeviceId, place: bytes) -> None:
        """Take a session with a device that has this place in the ring."""
        if peer in self._places:
            self._leave(peer)
        self._places[peer] = place
        insort(self._ring, (place, peer))
        self.sessions = [one for _, one in self._ring]

    def left(self, peer: DeviceId) -> None:
        """Take the end of a session."""
        if peer in self._places:
            self._leave(peer)
        for waiting in (self._now, self._later):
            for key in [key for key in waiting if key[0] == peer]:
                del waiting[key]

    def _leave(self, peer: DeviceId) -> None:
        self._ring.remove((self._places.pop(peer), peer))
        self.sessions = [one for _, one in self._ring]

    # -- whom to tell ------------------------------------------------------------------

    def news(
        self, member: DeviceId, source: DeviceId | None, now: float, *, is_awaited: bool
    ) -> None:
        """Pass on what `source` told us of a member, or we say ourselves."""
        sessions = self.sessions
        if not sessions:
            return
        at = bisect_left(self._ring, (self._place,))
        ring = {sessions[at % len(sessions)]: None, sessions[at - 1]: None}
        chords = _CHORDS if is_awaited else int(self._rng.random() < _LATER_CHORD)
        others = [one for one in sessions if one not in ring] if chords else []
        told = self._rng.sample(others, min(chords, len(others)))
        waiting = self._now if is_awaited else self._later
        for peer in (*ring, *told):
            if peer not in {source, member}:
                waiting[peer, member] = None
        if self._later and self._due == inf:
            self._due = now + self._gather * (0.5 + self._rng.random() / 2)

    def tell(self, peer: DeviceId, member: DeviceId) -> None:
        """Tell one neighbour of a member, at once."""
        self._now[peer, member] = None

    def is_known(self, peer: DeviceId, member: DeviceId) -> None:
        """Note that a neighbour knows all that we could tell it of a member."""
        self._now.pop((peer, member), None)
        self._later.pop((peer, member), None)

    def forget(self, member: DeviceId) -> None:
        """Tell nobody of a member."""
        for waiting in (self._now, self._later):
            for key in [key for key in waiting if key[1] == member]:
                del waiting[key]

    # -- time --------------------------------------------------------------------------

    def take(self, now: float) -> list[tuple[DeviceId, DeviceId]]:
        """Return who is to be told now of which member, by neighbour."""
        told = self._now
        if now >= self._due:
            told |= self._later
            self._later = {}
            self._due = inf
        else:
            for key in told:
                self._later.pop(key, None)
        self._now = {}
        return sorted(told, key=lambda key: key[0]) if len(told) > 1 else list(told)

    def next_timeout(self) -> float:
        """Return when `take` has more though nothing happens."""
        return self._due
