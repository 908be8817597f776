"""Turns neighbours' answers into events, and the scheduler's requests into messages.

The scheduler numbers its requests for itself; a session numbers its own. What arrives
waits here until the scheduler has decided whether it is accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import nacl.exceptions
import nacl.signing

from p2p.agent.authors import Authors
from p2p.agent.scratch import Page, Scratch
from p2p.ostree.messages import Form
from p2p.ostree.objects import Checksum, ObjectName
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.wire import messages as m
from p2p.wire.bitmap import to_set, unpack
from p2p.wire.hashes import statement
from p2p.wire.limits import UNIT_BYTES

_ABOUT_OURS = m.BulkAnswer | m.PlainAnswer | m.Status | m.Update

Asked = a.Ask | a.Watch | a.RequestBatch | a.RequestHashes | a.RequestUnit


@dataclass(frozen=True, slots=True)
class Delivery:
    """An object that arrived and is not accepted yet; giver None is the origin."""

    name: ObjectName
    giver: m.DeviceId | None
    form: Form
    data: bytes


class Answers:
    """What is asked of neighbours and not answered yet."""

    def __init__(
        self,
        tell: Callable[[e.Event], None],
        land: Callable[[Delivery], None],
        scratch: Scratch,
    ) -> None:
        """Tell events with `tell`, hand over whole objects with `land`."""
        self._tell = tell
        self._land = land
        self._scratch = scratch
        self._asked: dict[tuple[m.DeviceId, int], Asked] = {}
        self._numbers: dict[tuple[m.DeviceId, int], int] = {}
        self._pages: dict[tuple[m.DeviceId, int], Page] = {}
        self._units: dict[tuple[ObjectName, int], bytes] = {}
        self.authors = Authors()
        self.closures: dict[Checksum, list[ObjectName]] = {}

    # -- requests ----------------------------------------------------------------

    def builder(self, action: Asked) -> Callable[[m.RequestId], m.Request]:
        """Return what makes the message of a request, given its id."""
        match action:
            case a.Ask(_, _, names):
                prefixes = tuple(map(m.prefix_of, names))
                return lambda number: m.Ask(number, prefixes)
            case a.Watch(_, _, commit):
                count = len(self.closures.get(commit, ()))
                return lambda number: m.Watch(number, commit, count)
            case a.RequestBatch(_, _, names, limit):
                return lambda number: m.Want(number, limit, names)
            case a.RequestHashes(_, _, name, first, count):
                return lambda number: m.GetHashes(number, name, first, count)
            case a.RequestUnit(_, _, name, unit):
                start = unit * UNIT_BYTES
                return lambda number: m.GetUnit(number, name, start, UNIT_BYTES)

    def expect(self, action: Asked, request: int) -> None:
        """Remember what a session's request is for."""
        self._asked[action.peer, request] = action
        self._numbers[action.peer, action.request] = request

    def wire_request(self, peer: m.DeviceId, number: int) -> int:
        """Return the session's id of the scheduler's request; 0 if it has ended."""
        return self._numbers.get((peer, number), 0)

    def forget(self, peer: m.DeviceId) -> None:
        """Forget what was asked of a neighbour that left."""
        for key in [key for key in self._asked if key[0] == peer]:
            del self._asked[key]
        for key in [key for key in self._numbers if key[0] == peer]:
            del self._numbers[key]

    # -- answers -----------------------------------------------------------------

    def take(self, peer: m.DeviceId, message: m.Message) -> bool:
        """Take an answer; tell whether it was one of ours."""
        # A CANCEL has a number too, but it is one of the peer's own requests'.
        if not isinstance(message, _ABOUT_OURS):
            return False
        request = message.request
        action = self._asked.get((peer, request))
        if action is None:
            return False
        match message:
            case m.Status(_, queued, rate):
                self._tell(e.StatusReported(peer, queued, rate))
                return True
            case m.Map() | m.Have() | m.Units():
                self._take_map(action, message)
                return True
        del self._asked[peer, request]
        self._numbers.pop((peer, action.request), None)
        self._end(action, message)
        return True

    def _end(self, action: Asked, message: m.Message) -> None:
        peer, number = action.peer, action.request
        ended = e.RequestEnded(peer, number, e.Outcome.DONE)
        match message, action:
            case m.Sizes(_, sizes), a.Ask():
                self._tell(e.AskAnswered(peer, number, sizes))
                return
            case m.Batch(_, objects), a.RequestBatch(_, _, names):
                ended = self._take_batch(action, names, objects)
            case m.Hashes(), a.RequestHashes():
                if not self._take_hashes(action, message):
                    self._tell(e.MisbehaviourSeen(peer))
                    return
            case m.Unit(_, data), a.RequestUnit():
                self._take_unit(action, data)
            case m.NotHave(), _:
                ended = e.RequestEnded(peer, number, e.Outcome.NOT_HAVE)
            case m.Cancelled(), _:
                ended = e.RequestEnded(peer, number, e.Outcome.CANCELLED)
            case m.Elsewhere(), _:
                ended = e.RequestEnded(peer, number, e.Outcome.ELSEWHERE)
            case m.Busy(_, milliseconds), _:
                seconds = milliseconds / 1000
                ended = e.RequestEnded(peer, number, e.Outcome.BUSY, seconds=seconds)
            case _:
                ended = e.RequestEnded(peer, number, e.Outcome.REJECTED)
        self._tell(ended)

    def _take_batch(
        self,
        action: a.RequestBatch,
        names: tuple[ObjectName, ...],
        objects: tuple[bytes | m.Miss, ...],
    ) -> e.RequestEnded:
        came = []
        misses = []
        for name, data in zip(names, objects, strict=True):
            if isinstance(data, m.Miss):
                misses.append((name, data))
            else:
                came.append((name, len(data)))
                self._land(Delivery(name, action.peer, Form.CANONICAL, data))
        self._tell(e.ObjectsDelivered(action.peer, action.request, tuple(came)))
        return e.RequestEnded(
            action.peer, action.request, e.Outcome.DONE, misses=tuple(misses)
        )

    # -- large objects -----------------------------------------------------------

    def _take_hashes(self, action: a.RequestHashes, message: m.Hashes) -> bool:
        name = action.name
        signed = statement(name, message.size, message.first, message.hashes)
        try:
            nacl.signing.VerifyKey(message.signer).verify(signed, message.signature)
        except (nacl.exceptions.CryptoError, ValueError):
            return False
        page = Page(
            message.size,
            message.first,
            message.hashes,
            message.signer,
            message.signature,
        )
        self._pages[action.peer, action.request] = page
        self._tell(
            e.HashesDelivered(
                peer=action.peer,
                request=action.request,
                size=message.size,
                first=message.first,
                count=page.count,
                author=self.authors.of(action.peer, message.signer),
            )
        )
        return True

    def accept_hashes(self, action: a.AcceptHashes) -> None:
        """Check units against a page that was accepted."""
        page = self._pages.pop((action.peer, action.request))
        self._scratch.add_page(action.name, page)

    def _take_unit(self, action: a.RequestUnit, data: bytes) -> None:
        digest = self._scratch.digest(action.name, action.unit)
        if hashlib.sha256(data).digest() == digest:
            self._units[action.name, action.unit] = data
            self._tell(e.UnitDelivered(action.peer, action.request))
        else:
            self._tell(e.UnitRejected(action.peer, action.request))

    def keep_unit(self, name: ObjectName, unit: int) -> None:
        """Keep a unit that was accepted."""
        data = self._units.pop((name, unit), None)
        if data is not None:
            self._scratch.write(name, unit, data)

    def drop_unaccepted(self) -> None:
        """Forget units and hashes that arrived and were not accepted."""
        self._units.clear()
        self._pages.clear()

    # -- maps --------------------------------------------------------------------

    def _take_map(self, action: Asked, message: m.Map | m.Have | m.Units) -> None:
        if not isinstance(action, a.Watch):
            return
        closure = self.closures.get(action.commit, [])
        names: list[ObjectName] = []
        match message:
            case m.Map(_, None):
                names = closure
            case m.Map(_, bits):
                indices = unpack(bits or b"")
                names = [closure[i] for i in indices if i < len(closure)]
            case m.Have(_, indices):
                names = [closure[i] for i in indices if i < len(closure)]
            case m.Units(_, objects):
                had = [
                    e.UnitsHad(closure[index], to_set(bits))
                    for index, bits in objects
                    if index < len(closure)
                ]
                self._tell(e.HaveChanged(action.peer, units=tuple(had)))
                return
        mapped = action.commit if isinstance(message, m.Map) else None
        self._tell(e.HaveChanged(action.peer, names, mapped=mapped))
