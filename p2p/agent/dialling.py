"""Keeps the sessions that the overlay wants with those that can be dialled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import trio

from p2p.agent.neighbours import Neighbours
from p2p.net.advert import InstanceId
from p2p.net.target import Target
from p2p.swarm.overlay import MESH_MEMBERS, End
from p2p.wire import messages as m
from p2p.wire.limits import INSTANCE_BYTES

# mDNS may find it too, a moment later.
TOLD_SECONDS = 2.0
MAX_TOLD_OF = 1024
# What stands in the way of ending a session is not told when it is over.
TRIM_SECONDS = 30.0
# Nobody is dialled while members of a large site are found one after the other: each
# changes who is next to us in the ring. The larger the site, the longer the pauses in
# between; whoever makes members up does not keep us waiting for long.
QUIET_SECONDS_EACH = 0.01
MAX_QUIET_SECONDS = 1.0
MAX_SURGE_SECONDS = 5.0


class Surge:
    """Members of a large site that are found one after the other; sans-IO."""

    def __init__(self) -> None:
        """Begin calm."""
        self._began: float | None = None
        self._until = 0.0

    def found(self, known: int, now: float) -> None:
        """Note that a member was found, and how many are known with it."""
        if known <= MESH_MEMBERS:
            return
        if self._began is None:
            self._began = now
        quiet = min(known * QUIET_SECONDS_EACH, MAX_QUIET_SECONDS)
        self._until = min(now + quiet, self._began + MAX_SURGE_SECONDS)

    def end(self, now: float) -> float:
        """Return when it is over as things stand; once that has come, it is."""
        if self._until <= now:
            self._began = None
        return self._until


class _Known(NamedTuple):
    """Where a member is, since when that is known, and who it is if it says so."""

    targets: tuple[Target, ...]
    since: float
    device: m.DeviceId | None = None


class Dialling:
    """Dials members, and ends sessions that are of no use, while `run` runs.

    Attributes:
        on_failure: called with who could not be reached.
        on_lost: called with where somebody was that is not found any more.

    """

    def __init__(self, neighbours: Neighbours) -> None:
        """Dial for `neighbours`, and nobody yet."""
        self._neighbours = neighbours
        self._overlay = neighbours.overlay
        self._known: dict[InstanceId, _Known] = {}
        self._surge = Surge()
        self._wake = trio.Event()
        self.on_failure: Callable[[InstanceId], Awaitable[None]] = _accept_failure
        self.on_lost: Callable[[tuple[Target, ...]], None] = _accept_loss
        neighbours.on_change = self._look

    def _look(self) -> None:
        self._wake.set()

    def found(
        self, instance: InstanceId, targets: tuple[Target, ...], seconds: float
    ) -> None:
        """Know where a member is that may be dialled in so many seconds."""
        for device, alias in list(self._neighbours.aliases.items()):
            if not set(self._known[alias].targets).isdisjoint(targets):
                self._forget(device, alias)
                self._neighbours.rename(alias, instance)
        known = self._known.get(instance)
        if known is None or known.targets != targets:
            since = trio.current_time() if known is None else known.since
            self._enter(instance, _Known(targets, since), seconds)

    def lost(self, instance: InstanceId) -> None:
        """Dial a member no more, unless it says itself where it is.

        A session that is up goes on.
        """
        known = self._known.get(instance)
        self._drop(instance)
        if known is not None:
            self.on_lost(known.targets)

    def _drop(self, instance: InstanceId) -> None:
        self._known.pop(instance, None)
        self._overlay.lost(instance)
        self._look()

    def told_of(self, device: m.DeviceId, targets: tuple[Target, ...]) -> None:
        """Know where a member says it is; nowhere if it says so no more.

        What mDNS finds counts more. Whoever signs an address may lie about it, so
        another one is dialled no sooner than the one before would have been.
        """
        alias = InstanceId(bytes.fromhex(device)[:INSTANCE_BYTES])
        is_told = device in self._neighbours.aliases
        if not targets:
            self._forget(device, alias)
        elif is_told:
            self._known[alias] = self._known[alias]._replace(targets=targets)
        elif len(self._neighbours.aliases) < MAX_TOLD_OF and not self._is_known(
            device, targets
        ):
            self._neighbours.aliases[device] = alias
            known = _Known(targets, trio.current_time(), device)
            self._enter(alias, known, TOLD_SECONDS)

    def _enter(self, instance: InstanceId, known: _Known, seconds: float) -> None:
        now = trio.current_time()
        if instance not in self._known:
            self._surge.found(len(self._known) + 1, now)
        self._known[instance] = known
        self._overlay.found(instance, now + seconds)
        self._look()

    def _is_known(self, device: m.DeviceId, targets: tuple[Target, ...]) -> bool:
        """Tell whether a member is met, or known by what mDNS says."""
        return self._neighbours.get(device) is not None or any(
            not set(known.targets).isdisjoint(targets) for known in self._known.values()
        )

    def _forget(self, device: m.DeviceId, alias: InstanceId) -> None:
        if self._neighbours.aliases.pop(device, None) is not None:
            self._drop(alias)

    def describe(self) -> list[dict[str, Any]]:
        """Return whom this device could dial, met or not, as JSON values."""
        met = {each.member: each.session.peer for each in self._neighbours}
        now = trio.current_time()
        return [
            {
                "instance": instance.hex(),
                "device": met.get(instance, known.device),
                "met": instance in met,
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
                calm_at = self._surge.end(now)
                if calm_at > now:
                    await trio.sleep_until(calm_at)
                    continue
                for who in self._overlay.dials(now):
                    instance = InstanceId(who)
                    # It may be lost before the task begins.
                    known = self._known[instance]
                    nursery.start_soon(self._dial, instance, known)
                again = min(self._overlay.next_time(now), now + TRIM_SECONDS)
                with trio.move_on_at(again):
                    await self._wake.wait()

    async def _dial(self, instance: InstanceId, known: _Known) -> None:
        met = await self._neighbours.dial(known.targets)
        end = End.MET if self._neighbours.meets(instance) else met.end
        if known.device is not None and met.peer not in {None, known.device}:
            end = End.SLOW  # another device is there than the one that said so
        self._overlay.dialled(instance, end, trio.current_time())
        self._look()
        if end is End.FAILED:
            await self.on_failure(instance)


async def _accept_failure(_: InstanceId) -> None:
    """Nobody wants to know."""
    await trio.lowlevel.checkpoint()


def _accept_loss(_: tuple[Target, ...]) -> None:
    """Nobody knows more."""
