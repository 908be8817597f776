"""A virtual device: the production scheduler, a store, a writer, and a giver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from random import Random

from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.sim.giver import Answer, Giver, Question, Store
from p2p.sim.membership import Membership
from p2p.sim.network import Network
from p2p.sim.origin import Abort, Get, Got, Pace
from p2p.sim.timeline import Timeline
from p2p.sim.tree import Tree
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.scheduler import Scheduler
from p2p.swarm.tuning import Tuning
from p2p.wire.limits import MAX_CLAIM_COMMITS
from p2p.wire.messages import DeviceId, Digest, Held, HeldCommit, Record, RequestId
from p2p.wire.record import commit_tag

# What the writer takes to check and stage something.
_WRITER_SECONDS = 0.004


class Device:
    """One device of a virtual site.

    Attributes:
        store: what it has.
        finished: when it had all it wanted, None before.
        banned: whose sessions it does not take any more.
        trace: is told every action taken.

    """

    def __init__(
        self,
        id_: DeviceId,
        *,
        network: Network,
        timeline: Timeline,
        seed: int,
        tuning: Tuning | None = None,
        origin: DeviceId | None = None,
        giver: type[Giver] = Giver,
    ) -> None:
        self.id = id_
        self.store = Store()
        rng = Random(seed)  # noqa: S311 - equal seeds shall give equal runs
        self.scheduler = Scheduler(id_, rng=rng, tuning=tuning)
        self.giver = giver(id_, network, timeline, self.store)
        self.membership = Membership(
            id_, network=network, timeline=timeline, seed=seed, tell=self._happen
        )
        self.finished: float | None = None
        self.stuck: dict[a.Reason, tuple[ObjectName, ...]] = {}
        self.banned: dict[DeviceId, None] = {}
        self.trace: Callable[[float, a.Action], None] | None = None
        self._network = network
        self._timeline = timeline
        self._origin = origin
        self._trees: dict[Checksum, Tree] = {}
        self._held: dict[Checksum, Held] = {}
        self._unread: dict[Checksum, dict[ObjectName, None]] = {}
        self._seen: dict[Checksum, dict[ObjectName, None]] = {}
        self._spoiled: dict[ObjectName, None] = {}
        self._fetching: dict[ObjectName, int] = {}
        self._requests: dict[tuple[DeviceId, RequestId], Question] = {}
        self._wake = inf
        if origin is None:
            self.scheduler.handle(e.OriginStateChanged(e.OriginState.NO), 0.0)

    # -- what it has and wants ---------------------------------------------------------

    def put(self, tree: Tree) -> None:
        """Have a commit completely from the start."""
        self.store.sizes |= tree.sizes
        self._trees[tree.commit] = tree
        self._held[tree.commit] = Held.COMPLETE
        self._share()

    def want(self, tree: Tree) -> None:
        """Begin to update to a commit."""
        self._trees[tree.commit] = tree
        self._held[tree.commit] = Held.BEGUN
        self._unread[tree.commit] = {}
        self._seen[tree.commit] = {}
        self.finished = None
        self._share()
        self._find(tree.commit, tree.start)
        self._act()

    def _find(self, commit: Checksum, names: Sequence[ObjectName]) -> None:
        """Want what a directory names, and read the directories that are here."""
        seen, unread = self._seen[commit], self._unread[commit]
        tree = self._trees[commit]
        fresh: list[ObjectName] = []
        stack = list(names)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen[name] = None
            fresh.append(name)
            if name.type is not ObjectType.DIRTREE:
                continue
            if name in self.store.sizes:
                stack += tree.children[name]
            else:
                unread[name] = None
        self.scheduler.handle(e.Wanted(commit, fresh), self._timeline.now)
        here = [name for name in fresh if name in self.store.sizes]
        if here:
            self.scheduler.handle(e.AlreadyHere(here), self._timeline.now)
        if not unread and self._held[commit] is Held.BEGUN:
            self._held[commit] = Held.PARTIAL
            self.scheduler.handle(e.ClosureKnown(commit), self._timeline.now)
            self._share()

    def _share(self, *peers: DeviceId) -> None:
        """Tell neighbours (all, if none is named) what we hold."""
        commits = tuple(HeldCommit(*item) for item in self._held.items())
        message = e.HoldingsChanged(self.id, commits)
        if not peers:
            complete = [c for c, held in commits if held is Held.COMPLETE]
            tags = tuple(map(commit_tag, complete[-MAX_CLAIM_COMMITS:]))
            self.membership.complete(tags)
        for peer in peers or self._neighbours():
            self._network.send(self.id, peer, message)

    def _neighbours(self) -> list[DeviceId]:
        pipes = self._network.hosts[self.id].pipes
        return [peer for peer in pipes if peer != self._origin]

    @property
    def is_wanting(self) -> bool:
        """Tell whether it ever wanted a commit."""
        return bool(self._seen)

    # -- the network -------------------------------------------------------------------

    def joined(self, peer: DeviceId) -> None:
        """Take a session."""
        if peer in self.banned:
            self._network.part(self.id, peer)
        elif peer != self._origin:
            self._share(peer)
            self._happen(e.PeerJoined(peer))
            self.membership.joined(peer)

    def left(self, peer: DeviceId) -> None:
        """Take the end of a session."""
        self.giver.left(peer)
        for key in [key for key in self._requests if key[0] == peer]:
            del self._requests[key]
        if peer == self._origin:
            self._fail_fetches()
            self._act()
        else:
            self.membership.left(peer)
            self._happen(e.PeerLeft(peer))

    def _fail_fetches(self) -> None:
        for name in self._fetching:
            failed = e.OriginFailed(name, e.Failure.TRANSIENT)
            self.scheduler.handle(failed, self._timeline.now)
        self._fetching.clear()

    def progressed(self, peer: DeviceId, message: object, size: int) -> None:
        """Take that a part of some content came."""
        if isinstance(message, Got):
            self._progress_fetch(message, size)
        else:
            self._happen(e.DataArrived(peer, size))

    def _progress_fetch(self, message: Got, size: int) -> None:
        if message.name not in self._fetching:
            return
        self._fetching[message.name] += size
        so_far = self._fetching[message.name]
        self._happen(e.OriginProgressed(message.name, so_far))

    def sent(self, peer: DeviceId, message: object) -> None:
        """Take that some content left."""
        self.giver.sent(peer, message)

    def received(self, peer: DeviceId, message: object) -> None:
        """Take a message."""
        match message:
            case Answer():
                self._take_answer(message)
            case Got(name, size):
                self._end_fetch(name, size)
            case e.StatusReported() | e.HaveChanged() | e.HoldingsChanged():
                self._happen(message)
            case Record() | Digest():
                self.membership.received(peer, message)
            case (
                a.Ask()
                | a.Watch()
                | a.RequestBatch()
                | a.RequestHashes()
                | a.RequestUnit()
                | a.Cancel()
            ):
                self.giver.asked(peer, message)

    def _end_fetch(self, name: ObjectName, size: int | None) -> None:
        if self._fetching.pop(name, None) is None:
            return
        if size is None:
            self._happen(e.OriginFailed(name, e.Failure.NOT_FOUND))
        else:
            self._happen(e.OriginDelivered(name, size))

    def _take_answer(self, answer: Answer) -> None:
        for name in answer.spoiled:
            self._spoiled[name] = None
        for event in answer.events:
            self.scheduler.handle(self._check(event, answer), self._timeline.now)
        self._act()

    def _check(self, event: e.Event, answer: Answer) -> e.Event:
        """Compare a unit with the list in force."""
        if not isinstance(event, e.UnitDelivered):
            return event
        asked = self._requests.pop((event.peer, event.request), None)
        if not isinstance(asked, a.RequestUnit):
            return event
        if self.store.forger(asked.name) == answer.forger:
            return event
        return e.UnitRejected(event.peer, event.request)

    def resumed(self) -> None:
        """Go on after a suspension."""
        self.membership.resumed()
        self._act()

    def lose_origin(self) -> None:
        """Learn that the origin cannot be reached; what it was asked for fails."""
        if self._origin is None:
            return
        self._network.disconnect(self.id, self._origin)
        now = self._timeline.now
        self.scheduler.handle(e.OriginStateChanged(e.OriginState.NO), now)
        self._fail_fetches()
        self._act()

    def regain_origin(self) -> None:
        """Learn that the origin can be reached again."""
        if self._origin is not None:
            self._network.connect(self.id, self._origin)
            self._happen(e.OriginStateChanged(e.OriginState.OK))

    # -- the scheduler -----------------------------------------------------------------

    def _happen(self, event: e.Event) -> None:
        self.scheduler.handle(event, self._timeline.now)
        self._act()

    def _act(self) -> None:
        host = self._network.hosts[self.id]
        if host.is_silent or host.is_dead:
            return
        now = self._timeline.now
        for action in self.scheduler.actions(now):
            if self.trace is not None:
                self.trace(now, action)
            self._do(action)
        time = self.scheduler.next_timeout()
        if time is not None and time < self._wake:
            self._wake = time
            self._timeline.at(time, self._timed_out, time)

    def _timed_out(self, time: float) -> None:
        if time == self._wake:
            self._wake = inf
            self._act()

    def _do(self, action: a.Action) -> None:
        self.giver.giving.note(action)
        match action:
            case a.Accept(names):
                self._timeline.after(_WRITER_SECONDS, lambda: self._judge(names))
            case a.Assemble(name):
                self._timeline.after(_WRITER_SECONDS, lambda: self._judge((name,)))
            case a.AcceptHashes(name=name, size=size, author=author):
                self.store.lists[name] = size
                self.store.authors[name] = author
            case a.AcceptUnit(name, unit):
                self.store.units[name] = self.store.units.get(name, 0) | 1 << unit
            case a.DiscardUnits(name):
                self._discard(name)
            case a.DropPeer(peer, _, banned):
                if banned:
                    self.banned[peer] = None
                self._network.part(self.id, peer)
            case a.ReportStuck(names, reason):
                self.stuck[reason] = names
            case (
                a.Ask()
                | a.Watch()
                | a.RequestBatch()
                | a.RequestHashes()
                | a.RequestUnit()
                | a.Cancel()
            ):
                self._ask(action)
            case _:
                self._tell(action)

    def _tell(
        self,
        action: a.FetchFromOrigin
        | a.CancelOrigin
        | a.ShareOrigin
        | a.AnnounceHave
        | a.AnnounceMember,
    ) -> None:
        match action:
            case a.FetchFromOrigin(name):
                self._fetching[name] = 0
                self._fetch(Get(name))
            case a.CancelOrigin(name):
                self._fetch(Abort(name))
                self._timeline.after(0.0, lambda: self._cancelled(name))
            case a.ShareOrigin(rate):
                self._fetch(Pace(rate))
            case a.AnnounceHave(names, arriving):
                units = self.store.had(arriving)
                self._announce(e.HaveChanged(self.id, names, units))
            case a.AnnounceMember(claim, is_urgent):
                self.membership.claim(claim, is_urgent=is_urgent)

    def _fetch(self, message: Get | Abort | Pace) -> None:
        if self._origin is not None:
            self._network.send(self.id, self._origin, message)

    def _cancelled(self, name: ObjectName) -> None:
        if self._fetching.pop(name, None) is not None:
            self._happen(e.OriginFailed(name, e.Failure.CANCELLED))

    def _discard(self, name: ObjectName) -> None:
        had = self.store.units.pop(name, 0)
        self.store.lists.pop(name, None)
        self.store.authors.pop(name, None)
        if had and name not in self.store.sizes:
            self._announce(e.HaveChanged(self.id, units=(e.UnitsHad(name, 0),)))

    def _ask(self, action: Question) -> None:
        if isinstance(action, a.RequestUnit):
            self._requests[action.peer, action.request] = action
        self._network.send(self.id, action.peer, action)

    def _announce(self, have: e.HaveChanged) -> None:
        for peer in dict.fromkeys(peer for peer, _ in self.giver.watchers):
            self._network.send(self.id, peer, have)

    # -- the writer --------------------------------------------------------------------

    def _judge(self, names: Sequence[ObjectName]) -> None:
        if self._network.hosts[self.id].is_dead:
            return
        good: list[ObjectName] = []
        for name in names:
            if name in self._spoiled or self.store.forger(name):
                self._spoiled.pop(name, None)
                self.store.authors.pop(name, None)
                self.scheduler.handle(e.ObjectRejected(name), self._timeline.now)
            else:
                good.append(name)
        self._store(good)
        self.scheduler.handle(e.ObjectsVerified(good), self._timeline.now)
        for name in good:
            self._read(name)
        self._check_finished()
        self._act()

    def _store(self, names: Sequence[ObjectName]) -> None:
        for name in names:
            for tree in self._trees.values():
                if name in tree.sizes:
                    self.store.authors.pop(name, None)
                    self.store.sizes[name] = tree.sizes[name]
                    break

    def _read(self, name: ObjectName) -> None:
        for commit, unread in self._unread.items():
            if name in unread:
                del unread[name]
                self._find(commit, self._trees[commit].children[name])

    def _check_finished(self) -> None:
        if self.finished is None and self.scheduler.is_complete:
            self.finished = self._timeline.now
            for commit in self._held:
                self._held[commit] = Held.COMPLETE
            self._share()
