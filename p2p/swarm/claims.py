"""How far what neighbours say they have keeps us from fetching it ourselves.

Claims cost nothing. Who gave something before may pause, for its uplink is crowded; who
never gave anything is believed only for a moment after it was asked.
"""

from __future__ import annotations

from math import inf

from p2p.swarm.neighbour import Neighbour
from p2p.swarm.site import Site

# So long a neighbour may give nothing of what we asked it for.
_PROOF_SECONDS = 1.0
# So long we wait for what it referred to others, while it gave us nothing itself.
_REFERRAL_SECONDS = 3.0


class Claims:
    """Weighs what neighbours claim.

    Attributes:
        until: when the last answer of `held` may change though nothing happens.

    """

    def __init__(self, site: Site) -> None:
        self.until = inf
        self._site = site

    def __repr__(self) -> str:
        return f"<Claims until {self.until:.1f}>"

    def held(self, now: float) -> int:
        """Return what neighbours will give us, as far as they keep their word."""
        self.until = inf
        bits = 0
        for neighbour in self._site.neighbours.values():
            if neighbour.is_doubtful:
                continue
            if not neighbour.served:
                bits |= self._try(neighbour, now)
            elif not neighbour.is_lost:
                # What it referred to others comes from them.
                bits |= neighbour.holds
        return bits

    def _try(self, neighbour: Neighbour, now: float) -> int:
        """Return what we wait for of a neighbour that never gave anything."""
        if neighbour.stalls > 1:
            return 0
        if neighbour.waiting or not neighbour.is_live:
            expiry = max(neighbour.fed, neighbour.shrunk) + _PROOF_SECONDS
            if now >= expiry:
                return 0
            self.until = min(self.until, expiry)
        referring = neighbour.referring
        if referring is None or now >= referring + _REFERRAL_SECONDS:
            return neighbour.offers(now)
        self.until = min(self.until, referring + _REFERRAL_SECONDS)
        return neighbour.holds
