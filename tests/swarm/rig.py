"""A scheduler by itself, with names for what it is told and asked."""

from random import Random
from typing import TypeVar

from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.sim.site import device_id
from p2p.sim.tree import make_name
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.neighbour import Neighbour
from p2p.swarm.parts import Parts
from p2p.swarm.scheduler import Scheduler
from p2p.swarm.tuning import Limits, Tuning
from p2p.wire.limits import UNIT_BYTES
from p2p.wire.messages import DeviceId, Held, HeldCommit, Miss, RequestId
from p2p.wire.record import Claim, commit_tag

A = TypeVar("A")

ME = device_id("me")
ANNA, BERT, CLEO, DORA = (device_id(name) for name in ("anna", "bert", "cleo", "dora"))
COMMIT = make_name("commit", ObjectType.COMMIT).checksum
OTHER = make_name("other commit", ObjectType.COMMIT).checksum
BIG = make_name("big", ObjectType.FILE)


def files(count: int, label: str = "file") -> list[ObjectName]:
    return [make_name(f"{label} {k}", ObjectType.FILE) for k in range(count)]


def dirtrees(count: int) -> list[ObjectName]:
    return [make_name(f"dir {k}", ObjectType.DIRTREE) for k in range(count)]


class Rig:
    """Tells a scheduler what happens and collects what it does."""

    def __init__(
        self,
        seed: int = 1,
        *,
        origin: e.OriginState = e.OriginState.NO,
        tuning: Tuning | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.now = 100.0
        self.scheduler = Scheduler(ME, rng=Random(seed), tuning=tuning, limits=limits)
        self.log: list[a.Action] = []
        if origin is not e.OriginState.OK:
            self.tell(e.OriginStateChanged(origin))

    @property
    def parts(self) -> Parts:
        return self.scheduler._parts

    def neighbour(self, peer: DeviceId) -> Neighbour:
        return self.parts.site.neighbours[peer]

    # -- telling -------------------------------------------------------------------

    def tell(self, *events: e.Event) -> list[a.Action]:
        for event in events:
            self.scheduler.handle(event, self.now)
        return self.act()

    def act(self) -> list[a.Action]:
        actions = self.scheduler.actions(self.now)
        self.log += actions
        timeout = self.scheduler.next_timeout()
        assert timeout is None or timeout > self.now
        return actions

    def wait(self, seconds: float) -> list[a.Action]:
        """Let time pass, waking the scheduler when it asks for it."""
        until = self.now + seconds
        done: list[a.Action] = []
        while True:
            timeout = self.scheduler.next_timeout()
            if timeout is None or timeout > until:
                break
            self.now = timeout
            done += self.act()
        self.now = until
        return done + self.act()

    def join(
        self,
        peer: DeviceId,
        *commits: Checksum,
        held: Held = Held.COMPLETE,
        peer_origin: e.OriginState = e.OriginState.OK,
    ) -> list[a.Action]:
        held_commits = tuple(HeldCommit(commit, held) for commit in commits)
        claim = Claim(
            wants=tuple(commit_tag(c) for c in commits if held is not Held.COMPLETE),
            complete=tuple(commit_tag(c) for c in commits if held is Held.COMPLETE),
            origin=peer_origin,
        )
        return self.tell(
            e.PeerJoined(peer),
            e.HoldingsChanged(peer, held_commits),
            e.MemberSaid(peer, claim),
        )

    def want(
        self, names: list[ObjectName], commit: Checksum = COMMIT
    ) -> list[a.Action]:
        return self.tell(e.Wanted(commit, names))

    def have(self, peer: DeviceId, *names: ObjectName) -> list[a.Action]:
        return self.tell(e.HaveChanged(peer, names))

    def deliver(
        self,
        request: a.RequestBatch,
        *names: ObjectName,
        size: int = 1000,
        misses: tuple[tuple[ObjectName, Miss], ...] = (),
    ) -> list[a.Action]:
        """Answer a batch with these objects, all of them if none is named."""
        given = tuple((name, size) for name in names or request.names)
        return self.tell(
            e.DataArrived(request.peer, size * len(given)),
            e.ObjectsDelivered(request.peer, request.request, given),
            e.RequestEnded(request.peer, request.request, e.Outcome.DONE, misses),
        )

    def end(
        self,
        request: a.RequestBatch | a.RequestUnit | a.RequestHashes | a.Watch | a.Ask,
        outcome: e.Outcome,
        seconds: float = 0.0,
        misses: tuple[tuple[ObjectName, Miss], ...] = (),
    ) -> list[a.Action]:
        event = e.RequestEnded(request.peer, request.request, outcome, misses, seconds)
        return self.tell(event)

    def verify(self, *names: ObjectName) -> list[a.Action]:
        return self.tell(e.ObjectsVerified(names))

    def list_units(
        self,
        request: a.RequestHashes,
        units: int,
        *,
        author: DeviceId | None = ANNA,
        count: int | None = None,
    ) -> list[a.Action]:
        """Answer with the hashes of an object of so many units."""
        page = e.HashesDelivered(
            peer=request.peer,
            request=request.request,
            size=units * UNIT_BYTES,
            first=request.first,
            count=units - request.first if count is None else count,
            author=author,
        )
        end = e.RequestEnded(request.peer, request.request, e.Outcome.DONE)
        return self.tell(page, end)

    def give_unit(self, request: a.RequestUnit, *, good: bool = True) -> list[a.Action]:
        kind = e.UnitDelivered if good else e.UnitRejected
        return self.tell(
            e.DataArrived(request.peer, UNIT_BYTES),
            kind(request.peer, request.request),
            e.RequestEnded(request.peer, request.request, e.Outcome.DONE),
        )


def only(actions: list[a.Action], kind: type[A]) -> list[A]:
    """Return the actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]


def one(actions: list[a.Action], kind: type[A]) -> A:
    """Return the only action of this kind."""
    (action,) = only(actions, kind)
    return action


def number(value: int) -> RequestId:
    return RequestId(value)
