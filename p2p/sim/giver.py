"""The giving half of a virtual device: answers what neighbours ask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from p2p.ostree.objects import Checksum, ObjectName
from p2p.sim.network import Network
from p2p.sim.timeline import Timeline
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.giving import WHOLE, Giving, Thing
from p2p.wire.limits import UNIT_BYTES
from p2p.wire.messages import DeviceId, Miss, RequestId

# Sign of life while a request waits (protocol rule: at most five a second).
_STATUS_SECONDS = 0.2

Question = a.Ask | a.Watch | a.RequestBatch | a.RequestHashes | a.RequestUnit | a.Cancel
"""What a neighbour may send a giver."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a request is answered with: the events it is at the asker.

    Attributes:
        spoiled: objects in it whose bytes are wrong.
        forger: whose made-up object a unit is of, if it is.
        things: what is given with it.
        size: bytes of that.

    """

    request: RequestId
    events: tuple[e.Event, ...]
    spoiled: frozenset[ObjectName] = frozenset()
    forger: DeviceId | None = None
    things: tuple[Thing, ...] = ()
    size: int = 0


@dataclass(slots=True, eq=False)
class Store:
    """What a device can serve.

    Attributes:
        sizes: verified objects.
        units: verified units of large objects that are not complete.
        authors: who signed the unit hashes of those.
        lists: sizes of large objects whose unit hashes are known.
        forgers: who makes objects up, so that what its lists say is no object.

    """

    sizes: dict[ObjectName, int] = field(default_factory=dict)
    units: dict[ObjectName, int] = field(default_factory=dict)
    authors: dict[ObjectName, DeviceId | None] = field(default_factory=dict)
    lists: dict[ObjectName, int] = field(default_factory=dict)
    forgers: set[DeviceId] = field(default_factory=set)

    def had(self, names: Iterable[ObjectName]) -> tuple[e.UnitsHad, ...]:
        """Return the units of those of the objects that are not complete."""
        return tuple(
            e.UnitsHad(name, self.units[name])
            for name in names
            if name in self.units and name not in self.sizes
        )

    def forger(self, name: ObjectName) -> DeviceId | None:
        """Return who made up the list of a large object that is arriving, if it is."""
        author = self.authors.get(name)
        return author if author in self.forgers else None


class Giver:
    """Answers requests from a store, in the order they come on each session."""

    def __init__(
        self, me: DeviceId, network: Network, timeline: Timeline, store: Store
    ) -> None:
        self.me = me
        self.watchers: dict[tuple[DeviceId, RequestId], Checksum] = {}
        self._network = network
        self._timeline = timeline
        self._store = store
        self._queued: dict[tuple[DeviceId, RequestId], Answer] = {}
        self._is_ticking = False
        self._sent: dict[DeviceId, int] = {}
        self.giving = Giving()

    def left(self, peer: DeviceId) -> None:
        """Forget a session."""
        self.giving.left(peer)
        for table in (self.watchers, self._queued):
            for key in [key for key in table if key[0] == peer]:
                del table[key]

    def asked(self, peer: DeviceId, action: Question) -> None:
        """Answer a request."""
        match action:
            case a.Ask():
                sizes = tuple(self._store.sizes.get(name) for name in action.names)
                answer = e.AskAnswered(self.me, action.request, sizes)
                self._reply(peer, action.request, answer)
            case a.Watch():
                self.watchers[peer, action.request] = action.commit
                names = tuple(self._store.sizes)
                units = self._store.had(self._store.units)
                have = e.HaveChanged(self.me, names, units, mapped=action.commit)
                self._reply(peer, action.request, have)
            case a.RequestBatch():
                self._give_batch(peer, action)
            case a.RequestHashes():
                self._give_hashes(peer, action)
            case a.RequestUnit():
                self._give_unit(peer, action)
            case a.Cancel():
                self._cancel(peer, action.request)

    def _reply(self, peer: DeviceId, request: RequestId, event: e.Event) -> None:
        self._network.send(self.me, peer, Answer(request, (event,)))

    def _end(self, peer: DeviceId, request: RequestId, outcome: e.Outcome) -> None:
        self._reply(peer, request, e.RequestEnded(self.me, request, outcome))

    def sent(self, peer: DeviceId, message: object) -> None:
        """Note that an answer with content left completely."""
        if isinstance(message, Answer):
            self._queued.pop((peer, message.request), None)
            now = self._timeline.now
            self.giving.sent(message.things, peer, message.size, now)

    def _send(self, peer: DeviceId, answer: Answer) -> None:
        self._queued[peer, answer.request] = answer
        self._network.send(self.me, peer, answer, answer.size, is_bulk=True)
        if not self._is_ticking:
            self._is_ticking = True
            self._timeline.after(_STATUS_SECONDS, self._tick)

    def _give_batch(self, peer: DeviceId, asked: a.RequestBatch) -> None:
        given: list[tuple[ObjectName, int]] = []
        misses: list[tuple[ObjectName, Miss]] = []
        total = 0
        for name in asked.names:
            size = self._store.sizes.get(name)
            if size is None:
                misses.append((name, Miss.NOT_HAVE))
            elif size > asked.max_bytes:
                misses.append((name, Miss.TOO_LARGE))
            elif total + size > asked.max_bytes:
                misses.append((name, Miss.OMITTED))
            elif self.giving.claim((name, WHOLE), peer, self._timeline.now):
                misses.append((name, Miss.ELSEWHERE))
            else:
                total += size
                given.append((name, size))
        events = (
            e.ObjectsDelivered(self.me, asked.request, tuple(given)),
            e.RequestEnded(self.me, asked.request, e.Outcome.DONE, tuple(misses)),
        )
        things = tuple((name, WHOLE) for name, _ in given)
        answer = Answer(
            asked.request, events, self._spoil(given), things=things, size=total
        )
        self._send(peer, answer)

    def _spoil(self, given: list[tuple[ObjectName, int]]) -> frozenset[ObjectName]:
        """Return which of these are given with wrong bytes: none."""
        del given
        return frozenset()

    def _give_hashes(self, peer: DeviceId, asked: a.RequestHashes) -> None:
        name = asked.name
        size = self._store.sizes.get(name) or self._store.lists.get(name)
        if size is None:
            self._end(peer, asked.request, e.Outcome.NOT_HAVE)
            return
        count = min(-(-size // UNIT_BYTES) - asked.first, asked.count)
        page = e.HashesDelivered(
            peer=self.me,
            request=asked.request,
            size=size,
            first=asked.first,
            count=count,
            author=self._store.authors.get(name, self.me),
        )
        end = e.RequestEnded(self.me, asked.request, e.Outcome.DONE)
        answer = Answer(asked.request, (page, end))
        self._network.send(self.me, peer, answer)

    def _give_unit(self, peer: DeviceId, asked: a.RequestUnit) -> None:
        size = self._store.sizes.get(asked.name)
        if size is None and self._store.units.get(asked.name, 0) >> asked.unit & 1:
            size = self._store.lists[asked.name]
        if size is None:
            self._end(peer, asked.request, e.Outcome.NOT_HAVE)
            return
        thing = (asked.name, asked.unit)
        if self.giving.claim(thing, peer, self._timeline.now):
            self._end(peer, asked.request, e.Outcome.ELSEWHERE)
            return
        length = min(UNIT_BYTES, size - asked.unit * UNIT_BYTES)
        is_whole = asked.name in self._store.sizes
        forger = None if is_whole else self._store.forger(asked.name)
        events = (
            e.UnitDelivered(self.me, asked.request),
            e.RequestEnded(self.me, asked.request, e.Outcome.DONE),
        )
        answer = Answer(
            asked.request, events, forger=forger, things=(thing,), size=length
        )
        self._send(peer, answer)

    def _cancel(self, peer: DeviceId, request: RequestId) -> None:
        self.watchers.pop((peer, request), None)
        answer = self._queued.pop((peer, request), None)
        pipe = self._network.hosts[self.me].pipes.get(peer)
        if answer is not None and pipe is not None and pipe.withdraw(answer):
            self.giving.withdraw(answer.things, peer)
            self._end(peer, request, e.Outcome.CANCELLED)

    def _tick(self) -> None:
        """Tell who waits that we live."""
        self._is_ticking = False
        host = self._network.hosts[self.me]
        for peer, pipe in host.pipes.items():
            if not pipe.queued:
                continue
            self._is_ticking = True
            rate = (pipe.sent - self._sent.get(peer, 0)) / _STATUS_SECONDS
            self._sent[peer] = pipe.sent
            status = e.StatusReported(self.me, pipe.queued, rate)
            self._network.send(self.me, peer, status)
        if self._is_ticking and not host.is_dead:
            self._timeline.after(_STATUS_SECONDS, self._tick)
