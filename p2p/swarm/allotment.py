"""Our part of the rate at which the whole site may fetch from its origin.

Every device has the site's rate from its configuration. Each that fetches takes an
equal part of it: how many they are is known from what members say. Who does not fetch
takes a part too, so that it does not begin with too much.
"""

from __future__ import annotations

from p2p.swarm.action import ShareOrigin
from p2p.swarm.site import Site


class Allotment:
    """Says what our part is whenever it changes."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._told: float | None = None

    def __repr__(self) -> str:
        return f"<Allotment of {self._told} bytes/s>"

    def run(self) -> None:
        """Tell our part if it is another one than before."""
        cap = self._site.limits.origin_rate
        part = None if cap is None else cap / (1 + self._others())
        if part != self._told:
            self._told = part
            self._site.emit(ShareOrigin(part))

    def _others(self) -> int:
        members = self._site.fetchers()
        return sum(bool(member.active) for member in members)
