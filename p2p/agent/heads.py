"""Asks neighbours for commits: the head of a ref, or one by its checksum.

What they say is only an offer: whoever asks verifies it. Here is only seen to it that
nobody makes the others wait, or fills the memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from p2p.agent.neighbourhood import Neighbourhood
from p2p.errors import (
    CredentialsError,
    Error,
    OriginError,
    OriginNotFoundError,
    TransportError,
)
from p2p.ostree.objects import checksum_of
from p2p.swarm.action import Blame
from p2p.swarm.gossip import Member
from p2p.wire import messages as m

# Neighbours may offer different heads; while more of them are expected to come up,
# this is waited for them after the first offer.
GATHER_SECONDS: Final = 0.5
# Once nobody else is expected, no question takes longer, whatever neighbours do.
WAIT_SECONDS: Final = 3.0
# Who works on the question says so five times a second. Once somebody has answered,
# who says nothing for so long is not waited for.
SILENCE_SECONDS: Final = 0.5
# Each answer may have 10 MiB.
MOST_ASKED_AT_ONCE: Final = 16
MAX_OFFER_BYTES: Final = 32 << 20

# An origin that does not answer for so long is not waited for where neighbours may.
ORIGIN_SECONDS: Final = 8.0

T = TypeVar("T")
Build = Callable[[m.RequestId], m.Request]


class _Query:
    """One question to every neighbour, also to those that join meanwhile."""

    def __init__(self, neighbours: Neighbourhood, build: Build) -> None:
        self._neighbours = neighbours
        self._build = build
        self._queue: deque[m.DeviceId] = deque()
        self._asked: dict[m.DeviceId, int] = {}
        self._heard: dict[m.DeviceId, float] = {}
        self._changed = trio.Event()
        self._is_answered = False
        self._is_settled = False
        self._offered = math.inf
        self.offers: list[m.CommitData] = []

    # -- what neighbours do ------------------------------------------------------

    def joined(self, peer: m.DeviceId, hello: m.Hello) -> None:  # noqa: ARG002 - as Listening has it
        self._queue.append(peer)
        self._changed.set()

    def left(self, peer: m.DeviceId) -> None:
        if peer in self._queue:
            self._queue.remove(peer)
        self._asked.pop(peer, None)
        self._changed.set()

    def member(self, who: m.DeviceId, said: Member | None) -> None:
        """What members get is of no importance here."""

    def data(self, peer: m.DeviceId, size: int) -> None:  # noqa: ARG002 - as Listening has it
        if peer in self._asked:
            self._heard[peer] = trio.current_time()

    def message(self, peer: m.DeviceId, message: m.Message) -> None:
        request = getattr(message, "request", None)
        if request is None or self._asked.get(peer) != request:
            return
        if isinstance(message, m.Status):
            return
        del self._asked[peer]
        self._is_answered = True
        if isinstance(message, m.CommitData):
            self._take(peer, message)
        self._changed.set()

    def _take(self, peer: m.DeviceId, offer: m.CommitData) -> None:
        if checksum_of(offer.commit) != offer.checksum:
            self._neighbours.drop(peer, Blame.WRONG_BYTES, banned=True)
            return
        if any(_says(offer) == _says(other) for other in self.offers):
            return
        self._offered = min(self._offered, trio.current_time())
        # A commit has some kilobytes: the large ones are those to do without.
        self.offers.append(offer)
        self.offers.sort(key=_size)
        while sum(map(_size, self.offers)) > MAX_OFFER_BYTES:
            self.offers.pop()

    # -- asking ------------------------------------------------------------------

    def _ask_more(self) -> None:
        while self._queue and len(self._waited_for()) < MOST_ASKED_AT_ONCE:
            peer = self._queue.popleft()
            request = self._neighbours.request(peer, self._build)
            if request:
                self._asked[peer] = request
                self._heard[peer] = trio.current_time()

    def _waited_for(self) -> list[m.DeviceId]:
        latest = trio.current_time() - SILENCE_SECONDS
        return [peer for peer in self._asked if self._heard[peer] > latest]

    async def end_in_time(self, whole: trio.CancelScope) -> None:
        """Wait until nobody else is expected; after that the rest must be quick."""
        await self._neighbours.settle()
        self._is_settled = True
        self._changed.set()
        await trio.sleep(WAIT_SECONDS)
        whole.cancel()

    async def wait(self) -> None:
        """Wait until everybody who is not silent has answered, and somebody has.

        Who is still expected to come is waited for too, but not for long once
        somebody has offered something.
        """
        while True:
            self._changed = trio.Event()
            self._ask_more()
            times = [self._heard[peer] + SILENCE_SECONDS for peer in self._waited_for()]
            if not (times or self._hopes(trio.current_time())):
                return
            if not self._is_settled:
                times.append(self._offered + GATHER_SECONDS)
            with trio.move_on_at(min(times, default=math.inf)):
                await self._changed.wait()

    def _hopes(self, now: float) -> bool:
        """Whether it is worth to wait for those who are silent, or not there yet."""
        if self._is_settled:
            return not self._is_answered
        return now < self._offered + GATHER_SECONDS

    def withdraw(self) -> None:
        """Wait for nobody any more."""
        for peer, request in self._asked.items():
            self._neighbours.cancel(peer, request)


async def ask_origin_first(
    neighbours: Neighbourhood | None,
    origin: Callable[[], Awaitable[T]],
    others: Callable[[], Awaitable[T | None]],
) -> T:
    """Return what the origin answers; while it does not, what neighbours do.

    A link that swallows everything looks like a slow one for a long time, so the origin
    is asked once more, without haste, where neighbours know nothing either.

    Raises:
        OriginNotFoundError, CredentialsError: the origin answered so.
        OriginError, TransportError: it cannot be reached, and neighbours know nothing.

    """
    in_haste = neighbours is not None and neighbours.has_sources
    failure: Error | None = None
    try:
        with trio.move_on_after(ORIGIN_SECONDS if in_haste else math.inf):
            return await origin()
    except (OriginNotFoundError, CredentialsError):
        raise
    except (OriginError, TransportError) as error:
        failure = error
    answer = await others()
    if answer is not None:
        return answer
    if failure is not None:
        raise failure
    return await origin()


async def ask_neighbours(
    neighbours: Neighbourhood, build: Build
) -> tuple[m.CommitData, ...]:
    """Return what neighbours offer for a GetHead or GetCommit, within some seconds.

    As long as others are expected and nobody offers anything, they are waited for.
    Each offer has the checksum that it says, and no two are the same.
    """
    query = _Query(neighbours, build)
    neighbours.begin(query)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(query.end_in_time, nursery.cancel_scope)
            await query.wait()
            nursery.cancel_scope.cancel()
    finally:
        neighbours.end()
        query.withdraw()
    return tuple(query.offers)


def _says(offer: m.CommitData) -> tuple[str, bytes | None]:
    return offer.checksum, offer.commitmeta


def _size(offer: m.CommitData) -> int:
    return len(offer.commit) + len(offer.commitmeta or b"")
