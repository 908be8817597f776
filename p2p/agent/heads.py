"""Asks neighbours for commits: the head of a ref, or one by its checksum.

What they say is only an offer: whoever asks verifies it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from p2p.agent.neighbourhood import Neighbourhood
from p2p.wire import messages as m

# Sessions come up within a second on a LAN; a slow device may take two.
WAIT_SECONDS: Final = 3.0

Build = Callable[[m.RequestId], m.Request]


class _Query:
    """One question to every neighbour, also to those that join meanwhile."""

    def __init__(self, neighbours: Neighbourhood, build: Build) -> None:
        self._neighbours = neighbours
        self._build = build
        self._asked: dict[m.DeviceId, int] = {}
        self._changed = trio.Event()
        self.answered: set[m.DeviceId] = set()
        self.offers: list[m.CommitData] = []

    def joined(self, peer: m.DeviceId, signing_key: bytes) -> None:  # noqa: ARG002
        request = self._neighbours.request(peer, self._build)
        if request:
            self._asked[peer] = request

    def left(self, peer: m.DeviceId) -> None:
        self._asked.pop(peer, None)
        self._changed.set()

    def data(self, peer: m.DeviceId, size: int) -> None:
        """Nothing is measured here."""

    def message(self, peer: m.DeviceId, message: m.Message) -> None:
        request = getattr(message, "request", None)
        if request is None or self._asked.get(peer) != request:
            return
        if isinstance(message, m.Status):
            return
        if isinstance(message, m.CommitData):
            self.offers.append(message)
        del self._asked[peer]
        self.answered.add(peer)
        self._changed.set()

    async def wait(self) -> None:
        """Wait until everybody who was asked has answered."""
        while self._asked or not self.answered:
            self._changed = trio.Event()
            await self._changed.wait()


async def ask_neighbours(
    neighbours: Neighbourhood, build: Build
) -> tuple[m.CommitData, ...]:
    """Return what neighbours offer for a GetHead or GetCommit, within a few seconds."""
    query = _Query(neighbours, build)
    neighbours.begin(query)
    try:
        with trio.move_on_after(WAIT_SECONDS):
            await query.wait()
    finally:
        neighbours.end()
    return tuple(query.offers)
