"""One neighbour as long as its session lasts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import trio

from p2p.agent.serving import Server
from p2p.net.session import Session
from p2p.wire import messages as m
from p2p.wire.dial import Contender


@dataclass(slots=True)
class Neighbour:
    """One peer with its session.

    Attributes:
        member: what the overlay calls it: its instance, if that was known.
        is_of_site: whether it shares our origin link; others are given what they ask
            for, but nothing is fetched from them: it would cross two such links.
        holdings: what it says it has.
        taken_bytes: what came from it on this session.
        since: when the session came up, on trio's clock.

    """

    session: Session
    server: Server
    contender: Contender
    address: str
    member: bytes
    is_of_site: bool = True
    holdings: m.Holdings = field(default_factory=m.Holdings)
    taken_bytes: int = 0
    since: float = field(default_factory=trio.current_time)

    @property
    def instance(self) -> bytes:
        """Which run of which agent it is."""
        return self.contender.peer[0]

    def describe(self) -> dict[str, Any]:
        """Return what is known of it, as JSON values."""
        hello = self.session.connection.peer
        return {
            "device": self.session.peer,
            "address": self.address,
            "software": "" if hello is None else hello.software,
            "site": "" if hello is None else hello.site,
            "commits": [
                {"commit": each.commit, "held": each.held.name.lower()}
                for each in self.holdings.commits
            ],
            "refs": [
                {"ref": each.ref, "commit": each.commit} for each in self.holdings.refs
            ],
            "given_bytes": self.server.served_bytes,
            "taken_bytes": self.taken_bytes,
            "seconds": round(trio.current_time() - self.since, 1),
        }
