"""Keeps the sessions that the overlay wants with those that can be dialled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import trio

from p2p.agent.neighbours import Neighbours
from p2p.net.advert import InstanceId
from p2p.net.target import Target
from p2p.swarm.overlay import End

# What stands in the way of ending a session is not told when it is over.
TRIM_SECONDS = 30.0


class _Known(NamedTuple):
    """Where a member is, and since when that is known."""

    targets: tuple[Target, ...]
    since: float


class Dialling:
    """Dials members, and ends sessions that are of no use, while `run` runs.

    Attributes:
        on_failure: called with who could not be reached.

    """

    def __init__(self, neighbours: Neighbours) -> None:
        """Dial for `neighbours`, and nobody yet."""
        self._neighbours = neighbours
        self._overlay = neighbours.overlay
        self._known: dict[InstanceId, _Known] = {}
        self._wake = trio.Event()
        self.on_failure: Callable[[InstanceId], Awaitable[None]] = _accept_failure
        neighbours.on_change = self._look

    def _look(self) -> None:
        self._wake.set()

    def found(
        self, instance: InstanceId, targets: tuple[Target, ...], seconds: float
    ) -> None:
        """Know where a member is that may be dialled in so many seconds."""
        now = trio.current_time()
        known = self._known.get(instance)
        if known is None or known.targets != targets:
            since = now if known is None else known.since
            self._known[instance] = _Known(targets, since)
            self._overlay.found(instance, now + seconds)
            self._look()

    def lost(self, instance: InstanceId) -> None:
        """Dial a member no more; a session that is up goes on."""
        self._known.pop(instance, None)
        self._overlay.lost(instance)
        self._look()

    def describe(self) -> list[dict[str, Any]]:
        """Return whom this device could dial, met or not, as JSON values."""
        met = {each.instance: each.session.peer for each in self._neighbours}
        now = trio.current_time()
        return [
            {
                "instance": instance.hex(),
                "device": met.get(instance),
                "address": str(known.targets[0]),
                "seconds": round(now - known.since, 3),
            }
            for instance, known in self._known.items()
        ]

    async def run(self) -> None:
        """Dial until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._neighbours.trim()
                self._wake = trio.Event()
                now = trio.current_time()
                for instance in self._overlay.dials(now):
                    nursery.start_soon(self._dial, InstanceId(instance))
                again = min(self._overlay.next_time(now), now + TRIM_SECONDS)
                with trio.move_on_at(again):
                    await self._wake.wait()

    async def _dial(self, instance: InstanceId) -> None:
        met = await self._neighbours.dial(self._known[instance].targets)
        end = End.MET if self._neighbours.meets(instance) else met.end
        self._overlay.dialled(instance, end, trio.current_time())
        self._look()
        if end is End.FAILED:
            await self.on_failure(instance)


async def _accept_failure(_: InstanceId) -> None:
    """Nobody wants to know."""
    await trio.lowlevel.checkpoint()
