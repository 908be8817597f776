"""Neighbours of a virtual site that lie, or do not do what they should."""

from __future__ import annotations

from dataclasses import replace

from p2p.ostree.objects import ObjectName
from p2p.sim.giver import Answer, Giver, Question, Store
from p2p.sim.network import Network
from p2p.sim.timeline import Timeline
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.wire.limits import LARGE_OBJECT_BYTES
from p2p.wire.messages import DeviceId, Miss

_STATUS_SECONDS = 0.2
# What a dribbling one gives each neighbour in a second.
_DROP_BYTES = 1000
_DROP_SECONDS = 1.0


class Silent(Giver):
    """Claims to have everything and never says anything."""

    def asked(self, peer: DeviceId, action: Question) -> None:
        """Take no notice."""


class Idle(Giver):
    """Says that it lives, and gives nothing."""

    def asked(self, peer: DeviceId, action: Question) -> None:
        """Promise it."""
        if isinstance(action, a.Cancel):
            self._end(peer, action.request, e.Outcome.CANCELLED)
        else:
            self._promise(peer)

    def _promise(self, peer: DeviceId) -> None:
        self._network.send(self.me, peer, e.StatusReported(self.me, 0, 0.0))
        if peer in self._network.hosts[self.me].pipes:
            self._timeline.after(_STATUS_SECONDS, lambda: self._promise(peer))


class Dribbling(Idle):
    """Gives everybody who asks 1 KB a second, and never a whole object."""

    def __init__(
        self, me: DeviceId, network: Network, timeline: Timeline, store: Store
    ) -> None:
        super().__init__(me, network, timeline, store)
        self._asking: set[DeviceId] = set()

    def asked(self, peer: DeviceId, action: Question) -> None:
        """Promise it, and begin with the first thing that is content."""
        super().asked(peer, action)
        is_content = isinstance(action, a.RequestBatch | a.RequestUnit)
        if is_content and peer not in self._asking:
            self._asking.add(peer)
            self._drop(peer)

    def left(self, peer: DeviceId) -> None:
        """Give nothing more."""
        super().left(peer)
        self._asking.discard(peer)

    def _drop(self, peer: DeviceId) -> None:
        if peer in self._asking:
            status = e.StatusReported(self.me, 0, 0.0)
            self._network.send(self.me, peer, status, _DROP_BYTES, is_bulk=True)
            self._timeline.after(_DROP_SECONDS, lambda: self._drop(peer))


class _Refusing(Giver):
    outcome = e.Outcome.NOT_HAVE
    seconds = 0.0

    def asked(self, peer: DeviceId, action: Question) -> None:
        if isinstance(action, a.Ask):
            super().asked(peer, action)
        elif not isinstance(action, a.Cancel):
            end = e.RequestEnded(
                self.me, action.request, self.outcome, seconds=self.seconds
            )
            self._reply(peer, action.request, end)


class Denying(_Refusing):
    """Claims to have everything and denies what it is asked for."""


class Busy(_Refusing):
    """Is always busy."""

    outcome = e.Outcome.BUSY
    seconds = 0.1


class Referring(_Refusing):
    """Says that everything was given to somebody else."""

    outcome = e.Outcome.ELSEWHERE


class Cancelling(_Refusing):
    """Withdraws what nobody withdrew."""

    outcome = e.Outcome.CANCELLED


class FlippingObjects(Giver):
    """Gives small objects with other bytes."""

    def _spoil(self, given: list[tuple[ObjectName, int]]) -> frozenset[ObjectName]:
        return frozenset(name for name, _ in given)


class FlippingUnits(Giver):
    """Lists the right hashes and gives other units."""

    def _send(self, peer: DeviceId, answer: Answer) -> None:
        super()._send(peer, _replace_units(answer))


def _replace_units(answer: Answer) -> Answer:
    return replace(
        answer,
        events=tuple(
            e.UnitRejected(x.peer, x.request) if isinstance(x, e.UnitDelivered) else x
            for x in answer.events
        ),
    )


class Forging(Giver):
    """Makes large objects up, with a list of hashes that agrees with them."""

    def _send(self, peer: DeviceId, answer: Answer) -> None:
        super()._send(peer, replace(answer, forger=self.me))


class Enlarging(Giver):
    """Says of everything that it is too large for a batch."""

    def _give_batch(self, peer: DeviceId, asked: a.RequestBatch) -> None:
        misses = tuple((name, Miss.TOO_LARGE) for name in asked.names)
        end = e.RequestEnded(self.me, asked.request, e.Outcome.DONE, misses)
        self._reply(peer, asked.request, end)


class Shrinking(Giver):
    """Says of large objects that they are small, and of small ones they are large."""

    def asked(self, peer: DeviceId, action: Question) -> None:
        """Answer, but with other sizes."""
        if not isinstance(action, a.Ask):
            super().asked(peer, action)
            return
        sizes = tuple(
            None if size is None else _other_size(size)
            for size in map(self._store.sizes.get, action.names)
        )
        answer = e.AskAnswered(self.me, action.request, sizes)
        self._reply(peer, action.request, answer)

    def _give_hashes(self, peer: DeviceId, asked: a.RequestHashes) -> None:
        page = e.HashesDelivered(
            peer=self.me,
            request=asked.request,
            size=1000,
            first=asked.first,
            count=1,
            author=self.me,
        )
        end = e.RequestEnded(self.me, asked.request, e.Outcome.DONE)
        self._network.send(self.me, peer, Answer(asked.request, (page, end)))


def _other_size(size: int) -> int:
    return 1000 if size > LARGE_OBJECT_BYTES else LARGE_OBJECT_BYTES + 1


class Omitting(Giver):
    """Gives empty answers."""

    def _give_batch(self, peer: DeviceId, asked: a.RequestBatch) -> None:
        end = e.RequestEnded(self.me, asked.request, e.Outcome.DONE)
        self._reply(peer, asked.request, end)


VILLAINS: tuple[type[Giver], ...] = (
    Silent,
    Idle,
    Denying,
    Busy,
    Referring,
    Cancelling,
    FlippingObjects,
    FlippingUnits,
    Forging,
    Enlarging,
    Shrinking,
    Omitting,
    Dribbling,
)
