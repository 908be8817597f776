"""The state all parts share, and the few verbs everything else is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2p.ostree.objects import Checksum, ObjectName
from p2p.swarm.action import (
    Accept,
    Action,
    Blame,
    Cancel,
    CancelOrigin,
    DropPeer,
)
from p2p.swarm.bits import each, less, pack, tally, unite
from p2p.swarm.catalogue import Catalogue
from p2p.swarm.event import OriginState
from p2p.swarm.lifecycle import State, Step
from p2p.swarm.membership import Member, Members
from p2p.swarm.neighbour import Kind, Neighbour, Request
from p2p.swarm.tuning import Limits, Tuning
from p2p.wire.messages import DeviceId, Held, RequestId

if TYPE_CHECKING:
    from random import Random

# Who comes back under a new name each time must not fill our memory either.
_MAX_BANNED = 4096


@dataclass(slots=True)
class Tally:
    """Bytes by where they came from; `duplicate` ones were had already."""

    neighbours: int = 0
    origin: int = 0
    duplicate: int = 0
    rejected: int = 0


@dataclass(slots=True)
class Fetch:
    """An object the origin was asked for.

    Attributes:
        since: when it was asked for.
        moved: when something last came.
        byte_count: how much came so far.
        cancelled: it is not needed any more.
        impatient: it was somebody else's to fetch.

    """

    since: float
    moved: float
    byte_count: int = 0
    cancelled: bool = False
    impatient: bool = False


@dataclass(slots=True)
class Landed:
    """An object that waits for the writer's judgement; `giver` None: the origin."""

    giver: DeviceId | None
    size: int


@dataclass(slots=True, eq=False)
class Site:
    """What one device knows of its site.

    Attributes:
        me: our own device id.
        members: who else is on the site, neighbour or not.
        banned: who is not listened to any more during this update.
        out: actions not taken yet.
        epoch: grows whenever somebody has less, so that the origin may be needed.
        fetches: what the origin was asked for, by item.
        landed: what waits for the writer, by item.
        backlog: bytes of it.
        hedged: bytes of items asked of a second neighbour on purpose.
        outstanding: bytes expected of all neighbours.
        answers: grows whenever somebody may be asked again what it has.
        is_stirred: something happened since the last actions.
        is_impatient: we may have to fetch soon what is not ours to fetch.
        lapsed: how many requests are open and not waited for.
        unit_seconds: how long a neighbour takes to give one unit, usually.
        pace: how long neighbours that give something pause meanwhile, usually.
        mistold: items that came in another size than was said.

    """

    me: DeviceId
    tuning: Tuning
    rng: Random
    catalogue: Catalogue
    members: Members
    limits: Limits = field(default_factory=Limits)
    neighbours: dict[DeviceId, Neighbour] = field(default_factory=dict)
    banned: dict[DeviceId, Blame] = field(default_factory=dict)
    out: list[Action] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    epoch: int = 0
    membership: int = 0
    origin: OriginState = OriginState.OK
    origin_until: float = 0.0
    fetches: dict[int, Fetch] = field(default_factory=dict)
    landed: dict[int, Landed] = field(default_factory=dict)
    backlog: int = 0
    closed: dict[Checksum, None] = field(default_factory=dict)
    hedged: dict[int, int] = field(default_factory=dict)
    last_request: int = 0
    outstanding: int = 0
    answers: int = 0
    is_stirred: bool = True
    is_impatient: bool = False
    mistold: int = 0
    lapsed: int = 0
    pace: float = 0.0
    unit_seconds: float = 0.0
    counts: tuple[int, ...] = ()
    counted: float = -1.0

    def emit(self, action: Action) -> None:
        """Add an action to those the caller takes next."""
        self.out.append(action)

    # -- our own limits ------------------------------------------------------------

    def seconds_to_read(self, size: int) -> float:
        """Return how long we take ourselves to read so much; 0 without a limit."""
        rate = self.limits.download_rate
        return size / rate if rate else 0.0

    @property
    def is_read_slowly(self) -> bool:
        """Tell whether it is our limit that neighbours are slow, more than they."""
        rate = self.limits.download_rate
        if rate is None:
            return False
        waited = (n.meter.rate() for n in self.neighbours.values() if n.outstanding)
        return sum(waited) >= rate / 2

    # -- requests ------------------------------------------------------------------

    def open(
        self,
        neighbour: Neighbour,
        kind: Kind,
        items: Iterable[int],
        *,
        left: int,
        now: float,
        names: int | None = None,
    ) -> Request:
        """Note a new request; the caller emits the action for it.

        `names` is what it counts for, if not as much as it has items.
        """
        self.last_request += 1
        request = Request(RequestId(self.last_request), kind, dict.fromkeys(items))
        request.left = left
        request.names = len(request.items) if names is None else names
        if kind is not Kind.WATCH:
            self._wait(neighbour, request, now)
        neighbour.requests[request.id] = request
        return request

    def hedge(self, sizes: dict[int, int]) -> None:
        """Note that items are asked for once more than they are already."""
        self.hedged |= sizes

    def cancel(self, neighbour: Neighbour, request: Request, now: float) -> None:
        """Withdraw a request: what it still owes is open again."""
        if request.cancelled:
            return
        self._let_go(neighbour, request, now)
        request.cancelled = True
        if request.kind is Kind.ASK:
            neighbour.ask_again(request)
        self.emit(Cancel(neighbour.id, request.id))

    def lapse(self, neighbour: Neighbour, request: Request, now: float) -> None:
        """Wait for a request no more, but take what it brings before others do."""
        if request.is_due:
            self._let_go(neighbour, request, now)
            request.lapsed = True
            self.lapsed += 1

    def revive(self, neighbour: Neighbour, request: Request, now: float) -> None:
        """Wait again for a request that lapsed; others may have been asked too."""
        if not request.lapsed:
            return
        bits = pack(request.items)
        self.catalogue.shift(Step.ASK, bits)
        expect = self.catalogue.expect_bytes
        elsewhere = bits & self._owed_beside(request)
        self.hedge({item: expect(item) for item in each(elsewhere)})
        request.left = sum(map(expect, request.items))
        self._wait(neighbour, request, now)
        request.lapsed = False
        self.lapsed -= 1

    def _owed_beside(self, one: Request) -> int:
        """Return what is due from other requests that are waited for."""
        bits = 0
        for neighbour in self.neighbours.values():
            for request in neighbour.requests.values():
                if request is not one and request.is_due:
                    bits |= pack(request.items)
        return bits & self.catalogue.having(State.ASKED)

    def end(self, neighbour: Neighbour, request: Request, now: float) -> list[int]:
        """Forget a request that is over; return the items it did not bring."""
        del neighbour.requests[request.id]
        if not request.cancelled:
            self._let_go(neighbour, request, now)
        return list(request.items)

    def _let_go(self, neighbour: Neighbour, request: Request, now: float) -> None:
        if request.lapsed:
            request.lapsed = False
            self.lapsed -= 1
        else:
            self._stop_waiting(neighbour, request, now)
            self._release(request)

    def _wait(self, neighbour: Neighbour, request: Request, now: float) -> None:
        if not neighbour.waiting:
            neighbour.heard = now
        if not neighbour.waiting or not neighbour.owes_content:
            neighbour.fed = neighbour.shrunk = now
            neighbour.queued = None
        neighbour.waiting += 1
        if request.left:
            neighbour.outstanding += request.left
            self.outstanding += request.left
            neighbour.meter.start(now)

    def _stop_waiting(self, neighbour: Neighbour, request: Request, now: float) -> None:
        if request.kind is Kind.WATCH:
            return
        neighbour.waiting -= 1
        self.reduce(neighbour, request, request.left)
        if not neighbour.outstanding:
            neighbour.meter.stop(now)

    def _release(self, request: Request) -> None:
        if request.kind in {Kind.ASK, Kind.WATCH} or not request.items:
            return
        owed = self._owed_beside(request)
        self.catalogue.shift(Step.RETURN, less(pack(request.items), owed))
        for item in request.items:
            self.hedged.pop(item, None)

    def reduce(self, neighbour: Neighbour, request: Request, size: int) -> None:
        """Expect so many bytes less of a request."""
        size = min(size, request.left)
        request.left -= size
        neighbour.outstanding -= size
        self.outstanding -= size

    # -- neighbours ----------------------------------------------------------------

    def imply(self, neighbour: Neighbour) -> None:
        """Work out anew what a neighbour has because of the commits it holds."""
        bits = 0
        for commit, held in neighbour.held.items():
            members = self.catalogue.members.get(commit, 0)
            if held is Held.COMPLETE:
                bits |= members
            elif held is Held.PARTIAL:
                bits |= members & self.catalogue.metadata
        if less(neighbour.implied, bits):
            self.epoch += 1
        if neighbour.implied != bits:
            neighbour.implied = bits
            neighbour.learned += 1

    def imply_all(self, commit: Checksum | None = None) -> None:
        """Do so for all neighbours that share a commit (None: any)."""
        for neighbour in self.neighbours.values():
            if commit is None or commit in neighbour.held:
                self.imply(neighbour)

    def leave(self, neighbour: Neighbour, now: float) -> None:
        """Forget a neighbour; what it owed is open again."""
        for request in list(neighbour.requests.values()):
            self.end(neighbour, request, now)
        del self.neighbours[neighbour.id]
        self.members.lost(neighbour.id, now)
        self.recall_deferred()
        self.epoch += 1
        self.membership += 1
        self.counted = -1.0

    def recall_deferred(self) -> None:
        """Ask for what was left to others: one of them is not there any more."""
        for neighbour in self.neighbours.values():
            if neighbour.deferred:
                neighbour.deferred = []
                neighbour.learned += 1

    def drop(self, peer: DeviceId, blame: Blame, now: float) -> None:
        """End a neighbour's session, for good if the offence is certain."""
        banned = blame not in {Blame.SILENT, Blame.USELESS}
        if banned:
            self.banned[peer] = blame
            if len(self.banned) > _MAX_BANNED:
                del self.banned[next(iter(self.banned))]
        neighbour = self.neighbours.get(peer)
        if neighbour is not None:
            self.leave(neighbour, now)
        self.emit(DropPeer(peer, blame, banned))

    def fetchers(self) -> list[Member]:
        """Return the other members that may fetch from the origin what they get."""
        return [m for m in self.members.candidates() if self.is_counted_on(m)]

    def is_counted_on(self, member: Member) -> bool:
        """Tell whether we wait for what a member is to fetch."""
        neighbour = self.neighbours.get(member.id)
        is_suspect = neighbour is not None and neighbour.is_suspect
        return member.is_counted_on and not (is_suspect or member.stands)

    def held_by_others(self) -> int:
        """Return the items that neighbours have, to be given now or a little later."""
        return unite(n.holds for n in self.neighbours.values() if not n.is_lost)

    def count_copies(self, now: float) -> tuple[int, ...]:
        """Return how many neighbours have each item, as `bits.tally`; a bit stale."""
        if self.counted < 0 or now - self.counted >= 0.02 + 1e-7 * len(self.catalogue):
            self.counts = tally(n.holds for n in self.neighbours.values())
            self.counted = now
        return self.counts

    # -- arrivals ------------------------------------------------------------------

    def land(
        self,
        bits: int,
        sizes: dict[int, int],
        giver: DeviceId | None,
        *,
        is_exact: bool = True,
    ) -> tuple[int, ...]:
        """Take delivered objects that are still needed and pass them to the writer.

        Args:
            bits: the objects.
            sizes: how large they are, exactly or about.
            giver: None for the origin.
            is_exact: whether the sizes are those of the canonical form.

        Returns:
            The items taken; the others were here already.

        """
        moved = self.catalogue.shift(Step.ARRIVE, bits)
        if moved == bits:
            taken = tuple(sizes)
        else:
            taken = tuple(item for item in sizes if moved >> item & 1)
        landed, expected = self.landed, self.catalogue.sizes
        byte_count = 0
        for item in taken:
            size = sizes[item]
            landed[item] = Landed(giver, size)
            byte_count += size
            if is_exact:
                if expected[item] != size and expected[item]:
                    self.mistold |= 1 << item
                self.catalogue.learn_size(item, size)
            self.settle(item, from_origin=giver is None)
        self.backlog += byte_count
        if taken:
            names = tuple([self.catalogue.names[item] for item in taken])
            self.emit(Accept(names, giver))
        self.tally.duplicate += sum(sizes.values()) - byte_count
        return taken

    def settle(self, item: int, *, from_origin: bool) -> None:
        """Stop waiting for an item that came, wherever else it was asked."""
        fetch = self.fetches.get(item)
        if fetch is not None and not from_origin and not fetch.cancelled:
            fetch.cancelled = True
            self.emit(CancelOrigin(self.catalogue.names[item]))
        self.hedged.pop(item, None)

    def withdraw_settled(self, now: float) -> None:
        """Cancel requests all of whose items came from elsewhere."""
        asked = self.catalogue.having(State.ASKED)
        due = asked | self.catalogue.having(State.OPEN)
        for neighbour in self.neighbours.values():
            for request in list(neighbour.requests.values()):
                if (
                    request.kind in {Kind.BATCH, Kind.UNIT}
                    and not request.cancelled
                    and request.items
                    and not pack(request.items) & (due if request.lapsed else asked)
                ):
                    self.cancel(neighbour, request, now)

    def name(self, item: int) -> ObjectName:
        """Return the object of an item."""
        return self.catalogue.names[item]
