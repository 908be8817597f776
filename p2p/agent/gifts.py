"""What one neighbour is given and what it is told to take elsewhere.

It is decided when a request comes, not when its turn comes: who hears ELSEWHERE asks
for something else, and loses no more than the way there and back.
"""

from __future__ import annotations

import trio

from p2p.agent.sharing import Sharing
from p2p.ostree.objects import ObjectName
from p2p.swarm.giving import WHOLE, Thing
from p2p.wire import messages as m
from p2p.wire.limits import UNIT_BYTES


class Gifts:
    """One session's entries in the ledger of all."""

    def __init__(self, sharing: Sharing, taker: m.DeviceId) -> None:
        self._sharing = sharing
        self._giving = sharing.giving
        self._taker = taker
        self._claimed: dict[m.RequestId, list[Thing]] = {}
        self._elsewhere: dict[m.RequestId, frozenset[ObjectName]] = {}
        self._leaving: list[tuple[list[Thing], int]] = []
        self._is_over = False

    def decide(self, request: m.Request) -> m.Elsewhere | None:
        """Claim what is asked for; return the answer if nothing of it is given."""
        if isinstance(request, m.GetUnit):
            thing = request.name, request.offset // UNIT_BYTES
            other = self._claim(request, thing)
            return None if other is None else m.Elsewhere(request.request, other)
        if isinstance(request, m.Want):
            self._elsewhere[request.request] = frozenset(
                name for name in request.names if self._claim(request, (name, WHOLE))
            )
        return None

    def _claim(self, request: m.Request, thing: Thing) -> m.DeviceId | None:
        if self._is_over or not self._sharing.shares(thing[0]):
            return None
        other = self._giving.claim(thing, self._taker, trio.current_time())
        if other is None:
            self._claimed.setdefault(request.request, []).append(thing)
        return other

    def is_elsewhere(self, request: m.Want, name: ObjectName) -> bool:
        """Tell whether an object was given to others a moment ago."""
        return name in self._elsewhere.get(request.request, ())

    def answer(self, request: m.Request, answer: m.Message | None) -> None:
        """Note what of a request is given, nothing if it was cancelled."""
        self._elsewhere.pop(request.request, None)
        claimed = self._claimed.pop(request.request, [])
        given: list[Thing] = []
        size = 0
        if isinstance(answer, m.Unit):
            given, size = claimed, len(answer.data)
        elif isinstance(answer, m.Batch) and isinstance(request, m.Want):
            pairs = zip(request.names, answer.objects, strict=True)
            sent = {name: len(data) for name, data in pairs if isinstance(data, bytes)}
            given = [thing for thing in claimed if thing[0] in sent]
            size = sum(sent.values())
        kept = set(given)
        self._giving.withdraw((t for t in claimed if t not in kept), self._taker)
        if given:
            self._leaving.append((given, size))

    def written(self) -> None:
        """Note that all that was answered is on its way."""
        now = trio.current_time()
        for things, size in self._leaving:
            self._giving.sent(things, self._taker, size, now)
        self._leaving.clear()

    def end(self) -> None:
        """Let others have what this neighbour got: it is not there any more."""
        self._is_over = True
        self._giving.left(self._taker)
