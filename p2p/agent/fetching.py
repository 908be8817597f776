"""Carries out what the scheduler decides and tells it what came of it.

Deliveries wait in `_landed` until the scheduler accepts them, which it does at once or
never. What is accepted goes to the writer; what the writer acknowledged is verified,
and only then served to neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio

from p2p.agent.answers import Answers, Delivery
from p2p.agent.neighbourhood import Neighbourhood
from p2p.agent.prospects import Prospects
from p2p.agent.scratch import Scratch
from p2p.agent.stager import Outcome, Stager
from p2p.agent.survey import Survey, Tally
from p2p.agent.writing import Writer
from p2p.errors import (
    Error,
    FormatError,
    IntegrityError,
    OriginNotFoundError,
)
from p2p.ostree.messages import Form
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.gossip import Member
from p2p.swarm.scheduler import Scheduler
from p2p.web.client.bulk import (
    ObjectFailed,
    ObjectPiece,
    ObjectReceived,
    ObjectRestarted,
    OriginEvent,
    OriginPaused,
)
from p2p.web.client.origin import Origin
from p2p.wire import messages as m

# News and signs of life are shorter. A batch may take minutes where upload is limited.
_CONTENT_BYTES = 1 << 10


@dataclass(slots=True)
class _Streaming:
    """An object that comes from the origin in pieces; the last one waits for Accept."""

    received: int = 0
    size: int | None = None
    last: bytes | None = None
    parts: list[bytes] = field(default_factory=list)


class Fetching:
    """One pull's traffic; `run` until everything wanted is staged."""

    def __init__(  # noqa: PLR0913 - all a pull is made of, by name
        self,
        *,
        scheduler: Scheduler,
        survey: Survey,
        writer: Writer,
        origin: Origin | None,
        neighbours: Neighbourhood,
        scratch: Scratch,
        form: Form,
        verified: Callable[[Iterable[ObjectName]], None],
        named: Callable[[Checksum], Awaitable[list[ObjectName]]],
        share_origin: Callable[[float | None], None],
        accepting: Callable[[a.Action], None],
    ) -> None:
        """Fetch in `form` from the origin.

        `accepting` hears of every decision, `verified` of what is here. `named` is
        called once all directories are here, and returns the commit's closure.
        """
        self.scheduler = scheduler
        self.answers = Answers(self.tell, self._land, scratch)
        self._survey = survey
        self._stager = Stager(writer, self.staged)
        self._origin = origin
        self._neighbours = neighbours
        self._scratch = scratch
        self._form = form
        self._verified = verified
        self._named = named
        self._share_origin = share_origin
        self._accepting = accepting
        self._landed: dict[tuple[ObjectName, m.DeviceId | None], Delivery] = {}
        self._streams: dict[ObjectName, _Streaming] = {}
        self._assembled: set[ObjectName] = set()
        self._prospects = Prospects(neighbours)
        self.from_origin = Tally()
        self.from_peers = Tally()
        self._all_named = trio.Event()
        self._wake = trio.Event()
        self._finished = trio.Event()
        if origin is None:
            self.tell(e.OriginStateChanged(e.OriginState.NO))

    def tell(self, event: e.Event) -> None:
        """Tell the scheduler what happened; it acts a moment later."""
        self.scheduler.handle(event, trio.current_time())
        if self.scheduler.is_stirred:
            self._wake.set()

    def want(self, commit: Checksum) -> None:
        """Want what the survey found to be missing."""
        names = self._survey.take_all()
        if names:
            self.tell(e.Wanted(commit, names))

    async def run(self, commit: Checksum) -> None:
        """Fetch everything that the survey of a commit says is missing.

        Raises:
            OriginError, TransportError, IntegrityError: nobody has something; what
                the origin said, NoSourceError if it was not asked.
            RepositoryError, WriterError: what the writer reported.
            FormatError, LimitError: the commit's own directories are wrong.

        """
        self._commit = commit
        self._share_found()
        self.want(commit)
        if self._survey.complete:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stager.run)
            nursery.start_soon(self._act)
            nursery.start_soon(self._know_closure)
            nursery.start_soon(self._prospects.watch)
            if self._origin is not None:
                nursery.start_soon(self._listen_to, self._origin)
            await self._finished.wait()
            nursery.cancel_scope.cancel()

    def _share_found(self) -> None:
        """Give neighbours what an earlier pull left: they may lack just that."""
        names = self._survey.take_found()
        if names:
            self._verified(names)

    async def _know_closure(self) -> None:
        """Number the commit's objects once they are known, for neighbours' maps."""
        if not self._survey.all_named:
            await self._all_named.wait()
        self.answers.closures[self._commit] = await self._named(self._commit)
        self.tell(e.ClosureKnown(self._commit))

    # -- the scheduler's decisions -----------------------------------------------

    async def _act(self) -> None:
        while True:
            for action in self.scheduler.actions(trio.current_time()):
                self._do(action)
            for delivery in self._landed.values():
                self._consume(delivery)
            self._landed.clear()
            self.answers.drop_unaccepted()
            deadline = self.scheduler.next_timeout()
            with trio.move_on_at(math.inf if deadline is None else deadline):
                await self._wake.wait()
            self._wake = trio.Event()

    def _do(self, action: a.Action) -> None:
        self._accepting(action)
        match action:
            case a.Accept(names, giver):
                for name in names:
                    self._accept(name, giver)
            case a.AcceptHashes():
                self.answers.accept_hashes(action)
            case a.AcceptUnit(name, unit):
                self._prospects.moved()
                self.answers.keep_unit(name, unit)
            case a.Assemble(name):
                self._assemble(name)
            case a.DiscardUnits(name):
                self._scratch.discard(name)
                # Who was told of its units takes them from elsewhere.
                self._neighbours.announce(a.AnnounceHave((), (name,)))
            case a.FetchFromOrigin(name) if self._origin is not None:
                self._origin.want(name, form=self._form)
            case a.CancelOrigin(name):
                self._cancel_origin(name)
            case a.ReportStuck(names, reason):
                self._prospects.stuck(reason, names)
            case _:
                self._speak(action)

    def _speak(self, action: a.Action) -> None:
        neighbours = self._neighbours
        match action:
            case a.DropPeer(peer, blame, banned):
                is_liar = blame is a.Blame.FALSE_HASHES
                if not (is_liar and self.answers.authors.convict(peer)):
                    neighbours.drop(peer, blame, banned=banned)
            case a.AnnounceHave():
                neighbours.announce(action)
            case a.ShareOrigin(rate):
                self._share_origin(rate)
            case a.AnnounceMember():
                neighbours.announce_member(action)
            case a.Cancel(peer, number):
                neighbours.cancel(peer, self.answers.wire_request(peer, number))
            case (
                a.Ask()
                | a.Watch()
                | a.RequestBatch()
                | a.RequestHashes()
                | a.RequestUnit()
            ):
                self._ask(action)

    def _ask(
        self,
        action: a.Ask | a.Watch | a.RequestBatch | a.RequestHashes | a.RequestUnit,
    ) -> None:
        build = self.answers.builder(action)
        request = self._neighbours.request(action.peer, build)
        if request:
            self.answers.expect(action, request)
        else:
            busy = e.RequestEnded(
                action.peer, action.request, e.Outcome.BUSY, seconds=0.1
            )
            self.tell(busy)

    # -- deliveries --------------------------------------------------------------

    def _land(self, delivery: Delivery) -> None:
        self._landed[delivery.name, delivery.giver] = delivery

    def _consume(self, delivery: Delivery) -> None:
        if delivery.giver is None and self._origin is not None:
            self._origin.consumed(len(delivery.data))

    def _accept(self, name: ObjectName, giver: m.DeviceId | None) -> None:
        self._prospects.came(name)
        stream = self._streams.get(name) if giver is None else None
        if stream is not None:
            self._finish_stream(name, stream)
            return
        delivery = self._landed.pop((name, giver), None)
        if delivery is None:
            return
        tally = self.from_origin if giver is None else self.from_peers
        tally.add(len(delivery.data))
        if not self._read_directory(name, delivery.data):
            self._consume(delivery)
            return
        self._stager.add(name, delivery.form, delivery.data, credit=giver is None)

    def _read_directory(self, name: ObjectName, data: bytes) -> bool:
        """Want what a directory names; False if it is not the one it should be.

        Raises:
            FormatError, LimitError: it is, and whoever made the commit is at fault.

        """
        if name.type is not ObjectType.DIRTREE:
            return True
        try:
            self._survey.add_dirtree(name, data)
        except IntegrityError:
            self.tell(e.ObjectRejected(name))
            return False
        self._share_found()
        self.want(self._commit)
        return True

    def _assemble(self, name: ObjectName) -> None:
        size = self._scratch.size(name)
        self.from_peers.add(size)
        if name.type is ObjectType.FILE:
            self._assembled.add(name)
            self._stager.add_file(name, size, self._scratch.pieces(name))
            return
        data = b"".join(self._scratch.pieces(name))
        if self._read_directory(name, data):
            self._assembled.add(name)
            self._stager.add(name, Form.CANONICAL, data, credit=False)

    def staged(self, outcome: Outcome) -> None:
        """Take note of what the writer said."""
        for rejection in outcome.rejected:
            self._assembled.discard(rejection.name)
            self.tell(e.ObjectRejected(rejection.name))
        if outcome.staged:
            for name in self._assembled.intersection(outcome.staged):
                self._scratch.confirm(name)
                self._assembled.discard(name)
            self._survey.acknowledge(outcome.staged)
            self.tell(e.ObjectsVerified(outcome.staged))
        if self._origin is not None:
            self._origin.consumed(outcome.consumed)
        self._note_staged(outcome.staged)

    def copied(self, names: Sequence[ObjectName]) -> None:
        """Take note that these were staged from elsewhere on this machine."""
        self._note_staged(names)
        # The scheduler knows nothing of them, and who has a map asks for no other.
        self._neighbours.announce(a.AnnounceHave(tuple(names)))

    def _note_staged(self, names: Sequence[ObjectName]) -> None:
        if names:
            self._verified(names)
            if self._survey.all_named and not self._survey.awaited_directories:
                self._all_named.set()
        if self._survey.complete:
            self._finished.set()

    # -- neighbours --------------------------------------------------------------

    def joined(self, peer: m.DeviceId, hello: m.Hello) -> None:
        """A session is up, and this is what the peer said of itself."""
        self.answers.authors.add(peer, hello.signing_key)
        self.tell(e.PeerJoined(peer, hello.max_requests, hello.max_names))

    def left(self, peer: m.DeviceId) -> None:
        """It is over."""
        self.answers.forget(peer)
        self.tell(e.PeerLeft(peer))

    def data(self, peer: m.DeviceId, size: int) -> None:
        """Bytes came."""
        if size >= _CONTENT_BYTES:
            self._prospects.moved()
        self.tell(e.DataArrived(peer, size))

    def message(self, peer: m.DeviceId, message: m.Message) -> None:
        """An answer, or news, came."""
        if self.answers.take(peer, message):
            return
        match message:
            case m.Holdings(commits):
                self.tell(e.HoldingsChanged(peer, commits))

    def member(self, who: m.DeviceId, said: Member | None) -> None:
        """A member, neighbour or not, says something; None: it is gone."""
        if said is None:
            self.tell(e.MemberGone(who))
        else:
            self.tell(e.MemberSaid(who, said.claim, said.age))

    # -- the origin --------------------------------------------------------------

    async def _listen_to(self, origin: Origin) -> None:
        while True:
            for event in await origin.next_events():
                self._handle_origin(event)

    def _handle_origin(self, event: OriginEvent) -> None:
        match event:
            case ObjectReceived(name, data):
                form = self._form if name.type is ObjectType.FILE else Form.CANONICAL
                self._land(Delivery(name, None, form, data))
                self._tell_delivered(name, len(data))
            case ObjectPiece():
                self._take_piece(event)
            case ObjectRestarted(name):
                self._drop_stream(name)
            case ObjectFailed(name, error):
                self._drop_stream(name)
                self._prospects.failed(name, error)
                self.tell(e.OriginFailed(name, _failure(error)))
            case OriginPaused(seconds):
                busy = e.OriginStateChanged(e.OriginState.BUSY, seconds)
                self.tell(busy)

    def _take_piece(self, piece: ObjectPiece) -> None:
        name = piece.name
        stream = self._streams.setdefault(name, _Streaming())
        stream.received += len(piece.data)
        if name.type is not ObjectType.FILE:
            stream.parts.append(piece.data)
        else:
            if piece.offset == 0:
                self._stager.begin(name, self._form, piece.size)
            if not piece.last:
                self._stager.add_piece(name, piece.data, last=False)
        if piece.last:
            stream.last = piece.data
            self._tell_delivered(name, stream.received)
        else:
            self._prospects.moved()
            self.tell(e.OriginProgressed(name, stream.received))

    def _tell_delivered(self, name: ObjectName, size: int) -> None:
        is_packed = name.type is ObjectType.FILE and self._form is not Form.CANONICAL
        self.tell(e.OriginDelivered(name, size, is_canonical=not is_packed))

    def _finish_stream(self, name: ObjectName, stream: _Streaming) -> None:
        del self._streams[name]
        self.from_origin.add(stream.received)
        if name.type is ObjectType.FILE:
            self._stager.add_piece(name, stream.last or b"", last=True)
            return
        data = b"".join(stream.parts)
        self._landed[name, None] = Delivery(name, None, Form.CANONICAL, data)
        self.from_origin.objects -= 1
        self.from_origin.bytes -= len(data)
        self._accept(name, None)

    def _drop_stream(self, name: ObjectName) -> None:
        if self._streams.pop(name, None) is not None and name.type is ObjectType.FILE:
            self._stager.abort(name)

    def _cancel_origin(self, name: ObjectName) -> None:
        # It may have come, or failed, since the scheduler decided.
        if self._origin is not None and self._origin.forget(name):
            self._drop_stream(name)
            self.tell(e.OriginFailed(name, e.Failure.CANCELLED))


def _failure(error: Error) -> e.Failure:
    if isinstance(error, OriginNotFoundError):
        return e.Failure.NOT_FOUND
    if isinstance(error, FormatError | IntegrityError):
        return e.Failure.DAMAGED
    return e.Failure.TRANSIENT
