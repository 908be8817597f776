"""Keeps the sessions that the overlay wants with those that can be dialled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from p2p.agent.neighbours import Neighbours
from p2p.net.advert import InstanceId
from p2p.net.target import Target
from p2p.swarm.overlay import End

# What stands in the way of ending a session is not told when it is over.
TRIM_SECONDS = 30.0


class Dialling:
    """Dials members, and ends sessions that are of no use, while `run` runs.

    Attributes:
        on_failure: called with who could not be reached.

    """

    def __init__(self, neighbours: Neighbours) -> None:
        """Dial for `neighbours`, and nobody yet."""
        self._neighbours = neighbours
        self._overlay = neighbours.overlay
        self._targets: dict[InstanceId, tuple[Target, ...]] = {}
        self._wake = trio.Event()
        self.on_failure: Callable[[InstanceId], Awaitable[None]] = _accept_failure
        neighbours.on_change = self._look

    def _look(self) -> None:
        self._wake.set()

    def found(
        self, instance: InstanceId, targets: tuple[Target, ...], seconds: float
    ) -> None:
        """Know where a member is that may be dialled in so many seconds."""
        if self._targets.get(instance) != targets:
            self._targets[instance] = targets
            self._overlay.found(instance, trio.current_time() + seconds)
            self._look()

    def lost(self, instance: InstanceId) -> None:
        """Dial a member no more; a session that is up goes on."""
        self._targets.pop(instance, None)
        self._overlay.lost(instance)
        self._look()

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
        met = await self._neighbours.dial(self._targets[instance])
        end = End.MET if self._neighbours.meets(instance) else met.end
        self._overlay.dialled(instance, end, trio.current_time())
        self._look()
        if end is End.FAILED:
            await self.on_failure(instance)


async def _accept_failure(_: InstanceId) -> None:
    """Nobody wants to know."""
    await trio.lowlevel.checkpoint()
