"""Answers one neighbour's requests, from what is shared and nothing else.

Requests are answered in the order they came by one task, which reads the disk on a
thread and no faster than the neighbour takes it. While requests wait, the neighbour
hears how much is queued before them, so that it can tell a queue from a dead device.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import trio

from p2p.agent.announcement import Announcement
from p2p.agent.damage import Damage
from p2p.agent.gifts import Gifts
from p2p.agent.sharing import SharedCommit, Sharing
from p2p.agent.units import Units
from p2p.errors import DamagedObjectError, ObjectNotFoundError
from p2p.net.session import Session
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire import bitmap
from p2p.wire import messages as m
from p2p.wire.limits import BATCH_BYTES, MAX_BATCH_BYTES
from p2p.wire.packing import pack

STATUS_SECONDS = 0.2


class Server:
    """The serving half of one session."""

    def __init__(
        self,
        session: Session,
        *,
        sharing: Sharing,
        holdings: Holdings,
        units: Units,
        damage: Damage,
        disk: trio.CapacityLimiter,
    ) -> None:
        """`disk` bounds how many threads read for all neighbours together."""
        self._session = session
        self._sharing = sharing
        self._holdings = holdings
        self._units = units
        self._reader = units.reader
        self._damage = damage
        self._disk = disk
        self._queue: deque[m.Request] = deque()
        self._arrived = trio.Event()
        self._owing = trio.Event()
        self._watches: dict[m.RequestId, SharedCommit] = {}
        self._gifts = Gifts(sharing, session.peer)
        self.served_bytes = 0

    def handle(self, request: m.Request) -> None:
        """Take a request; it is answered later, in order, if it is not refused."""
        refusal = self._gifts.decide(request)
        if refusal is not None:
            self._session.send(refusal)
            return
        self._queue.append(request)
        self._arrived.set()
        self._owing.set()

    async def run(self) -> None:
        """Answer requests until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report_status)
                await self._answer_in_order()
        finally:
            self._gifts.end()

    async def _answer_in_order(self) -> None:
        while True:
            while not self._queue:
                self._arrived = trio.Event()
                await self._arrived.wait()
            await self._session.wait_for_room()
            self._gifts.written()
            group = self._next_group()
            answers = await self._answer_all(group)
            # Some may have been cancelled while the disk was read.
            for request, answer in zip(group, answers, strict=True):
                is_due = self._session.connection.owes(request.request)
                if is_due:
                    self._session.send(answer)
                    self._tell_arriving(request.request)
                self._gifts.answer(request, answer if is_due else None)
                self._queue.popleft()

    def _next_group(self) -> list[m.Request]:
        """Return the next requests that are worth one trip to the disk's thread.

        Changing threads costs as much as reading some files.
        """
        group: list[m.Request] = []
        left = 2 * self._session.ahead_bytes
        for request in self._queue:
            apart = isinstance(request, m.Watch)
            if group and (apart or left < _expected_bytes(request)):
                break
            group.append(request)
            left -= _expected_bytes(request)
            if apart:
                break
        return group

    async def _answer_all(self, group: list[m.Request]) -> list[m.Message]:
        if isinstance(group[0], m.Watch):
            return [self._watch(group[0])]
        return await trio.to_thread.run_sync(
            lambda: list(map(self._answer, group)), limiter=self._disk
        )

    async def _report_status(self) -> None:
        while True:
            if not self._session.connection.owed:
                self._owing = trio.Event()
                await self._owing.wait()
            await trio.sleep(STATUS_SECONDS)
            # What is answered may wait long for its turn where upload is limited.
            for number, left in self._session.connection.flowing:
                self._session.send(m.Status(m.RequestId(number), left, 0))
            before = self._session.connection.queued_bulk_bytes
            for request in self._queue:
                if self._session.connection.owes(request.request):
                    self._session.send(m.Status(request.request, before, 0))
                before += _expected_bytes(request)

    # -- on the disk's thread ------------------------------------------------------

    def _answer(self, request: m.Request) -> m.Message:
        if not self._session.connection.owes(request.request):
            return m.NotHave(request.request)
        try:
            return self._pack(self._look(request))
        except ObjectNotFoundError:
            return m.NotHave(request.request)
        except DamagedObjectError:
            if isinstance(request, m.GetUnit | m.GetHashes):
                self._damage.found(request.name)
            return m.Rejected(request.request, m.Refusal.DAMAGED)

    def _pack(self, answer: m.Message) -> m.Message:
        """Return the answer with its content packed, where that is worth it."""
        if self._session.connection.may_pack and isinstance(answer, m.Batch | m.Unit):
            return replace(answer, frame=pack(answer.content))
        return answer

    def _look(self, request: m.Request) -> m.Message:
        match request:
            case m.GetHead(number, ref, collection):
                return self._commit(number, self._sharing.head(ref, collection))
            case m.GetCommit(number, commit):
                return self._commit(number, commit)
            case m.Ask():
                return self._sizes(request)
            case m.Want():
                return self._batch(request)
            case m.GetUnit():
                return self._unit(request)
            case m.GetHashes():
                return self._hashes(request)
        return m.Rejected(request.request, m.Refusal.UNSUPPORTED)

    def _commit(self, number: m.RequestId, checksum: Checksum | None) -> m.Message:
        if checksum is None or self._sharing.commit(checksum) is None:
            return m.NotHave(number)
        name = ObjectName(checksum, ObjectType.COMMIT)
        try:
            data = self._holdings.load_metadata(name)
        except DamagedObjectError:
            self._damage.found(name)
            raise
        meta = self._holdings.load_commitmeta(checksum)
        return m.CommitData(number, checksum, data, meta)

    def _watch(self, request: m.Watch) -> m.Message:
        shared = self._sharing.commit(request.commit)
        if shared is None or shared.held is m.Held.BEGUN:
            return m.NotHave(request.request)
        if len(shared.closure) != request.objects:
            return m.Rejected(request.request, m.Refusal.RANGE, "another closure")
        if shared.held is m.Held.COMPLETE:
            return m.Map(request.request)
        self._watches[request.request] = shared
        packed = bitmap.pack(sorted(shared.here), len(shared.closure))
        return m.Map(request.request, packed)

    def announce(self, news: Announcement) -> None:
        """Tell the neighbour what came, as far as it watches the commit."""
        for number, shared in list(self._watches.items()):
            if not self._session.connection.owes(number):
                del self._watches[number]
                continue
            self._tell(number, shared, news)

    def _tell_arriving(self, number: m.RequestId) -> None:
        """Tell all units behind a map, if this request was answered with one."""
        shared = self._watches.get(number)
        if shared is not None:
            news = Announcement((), self._units.scratch.names())
            self._tell(number, shared, news)

    def _tell(
        self, number: m.RequestId, shared: SharedCommit, news: Announcement
    ) -> None:
        numbered = news.within(shared, self._units.scratch)
        if numbered.indices:
            self._session.send(m.Have(number, numbered.indices))
        if numbered.units:
            self._session.send(m.Units(number, numbered.units))

    # -- objects ---------------------------------------------------------------

    def _sizes(self, request: m.Ask) -> m.Message:
        names = [self._sharing.find(prefix) for prefix in request.prefixes]
        size = self._reader.size
        sizes = tuple(None if name is None else size(name) for name in names)
        return m.Sizes(request.request, sizes)

    def _batch(self, request: m.Want) -> m.Message:
        objects = self._read_batch(request)
        self.served_bytes += sum(len(o) for o in objects if isinstance(o, bytes))
        return m.Batch(request.request, objects)

    def _read_batch(self, request: m.Want) -> tuple[bytes | m.Miss, ...]:
        limit = min(request.max_bytes, MAX_BATCH_BYTES)
        left = limit
        objects: list[bytes | m.Miss] = []
        for name in request.names:
            if self._gifts.is_elsewhere(request, name):
                objects.append(m.Miss.ELSEWHERE)
                continue
            data = self._read_one(name, left, limit)
            objects.append(data)
            left -= len(data) if isinstance(data, bytes) else 0
        return tuple(objects)

    def _read_one(self, name: ObjectName, left: int, limit: int) -> bytes | m.Miss:
        if not self._sharing.shares(name):
            return m.Miss.NOT_HAVE
        try:
            data = self._reader.read(name, left)
            if data is not None:
                return data
            size = self._reader.size(name)
        except ObjectNotFoundError:
            return m.Miss.NOT_HAVE
        except DamagedObjectError:
            self._damage.found(name)
            return m.Miss.NOT_HAVE
        return m.Miss.TOO_LARGE if size is None or size > limit else m.Miss.OMITTED

    def _unit(self, request: m.GetUnit) -> m.Message:
        if not self._sharing.shares(request.name):
            return m.NotHave(request.request)
        answer = self._units.unit(request)
        if isinstance(answer, m.Unit):
            self.served_bytes += len(answer.data)
        return answer

    def _hashes(self, request: m.GetHashes) -> m.Message:
        if not self._sharing.shares(request.name):
            return m.NotHave(request.request)
        return self._units.hashes(request)


def _expected_bytes(request: m.Request) -> int:
    match request:
        case m.Want(_, max_bytes, _):
            # A limit: who asks knows the sizes and puts so much into a batch.
            return min(max_bytes, BATCH_BYTES)
        case m.GetUnit(_, _, _, length):
            return length
    return 0
