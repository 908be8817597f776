"""Asking everybody for a commit, without waiting for who does not answer."""

import math
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from p2p.agent.heads import (
    GATHER_SECONDS,
    MAX_OFFER_BYTES,
    MOST_ASKED_AT_ONCE,
    ORIGIN_SECONDS,
    SILENCE_SECONDS,
    WAIT_SECONDS,
    ask_neighbours,
    ask_origin_first,
)
from p2p.agent.neighbourhood import Listening, Nobody
from p2p.errors import ConnectError
from p2p.ostree.objects import checksum_of
from p2p.swarm import action as a
from p2p.wire import messages as m

HELLO = m.Hello(software="t", site="", instance=b"c" * 16, epoch=1, dial=1)


def offer(request: m.RequestId, data: bytes = b"commit") -> m.CommitData:
    return m.CommitData(request, checksum_of(data), data)


class Crowd(Nobody):
    """Neighbours that answer after some seconds, or never."""

    def __init__(self, delays: list[float]) -> None:
        self.delays = {m.DeviceId(f"{k:064x}"): d for k, d in enumerate(delays)}
        self.listening: Listening | None = None
        self.open: set[m.DeviceId] = set()
        self.most_open = 0
        self.cancelled: list[m.DeviceId] = []
        self.dropped: list[m.DeviceId] = []
        self.answer: Callable[[m.RequestId], m.Message] = offer
        self.status_every = math.inf
        self.settles_after = 0.0
        self.joins_after = math.inf
        self._nursery: trio.Nursery | None = None

    async def settle(self) -> None:
        await trio.sleep(self.settles_after)

    async def ask(self) -> tuple[m.CommitData, ...]:
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._join_late)
            offers = await ask_neighbours(self, lambda n: m.GetHead(n, "os", ""))
            self._nursery.cancel_scope.cancel()
        return offers

    async def _join_late(self) -> None:
        await trio.sleep(self.joins_after)
        assert self.listening is not None
        late = m.DeviceId("f" * 64)
        self.delays[late] = 0.1
        self.listening.joined(late, HELLO)

    def begin(self, listening: Listening) -> None:
        self.listening = listening
        for peer in self.delays:
            listening.joined(peer, HELLO)

    def request(
        self, peer: m.DeviceId, build: Callable[[m.RequestId], m.Request]
    ) -> int:
        assert self._nursery is not None
        request = build(m.RequestId(7)).request
        self.open.add(peer)
        self.most_open = max(self.most_open, len(self.open))
        self._nursery.start_soon(self._answer, peer, request)
        return request

    async def _answer(self, peer: m.DeviceId, request: m.RequestId) -> None:
        assert self.listening is not None
        left = self.delays[peer]
        while left > self.status_every:
            await trio.sleep(self.status_every)
            left -= self.status_every
            self.listening.data(peer, 9)
            self.listening.message(peer, m.Status(request, 0, 0))
        await trio.sleep(left)
        self.open.discard(peer)
        self.listening.message(peer, self.answer(request))

    def cancel(self, peer: m.DeviceId, request: int) -> None:
        assert request == 7
        self.cancelled.append(peer)

    def drop(self, peer: m.DeviceId, blame: a.Blame, *, banned: bool) -> None:
        assert (blame, banned) == (a.Blame.WRONG_BYTES, True)
        self.dropped.append(peer)


async def test_it_ends_with_the_last_answer(autojump_clock: MockClock) -> None:
    crowd = Crowd([0.1, 0.4])
    assert await crowd.ask() == (offer(m.RequestId(7)),)
    assert trio.current_time() == 0.4
    assert not crowd.cancelled


async def test_the_silent_cost_half_a_second(autojump_clock: MockClock) -> None:
    crowd = Crowd([0.1, math.inf, math.inf])
    assert len(await crowd.ask()) == 1
    assert trio.current_time() == SILENCE_SECONDS
    assert crowd.cancelled == list(crowd.delays)[1:]


async def test_who_is_at_work_is_waited_for(autojump_clock: MockClock) -> None:
    crowd = Crowd([0.1, 1.5])
    crowd.status_every = 0.2
    await crowd.ask()
    assert 1.4 < trio.current_time() < 1.6


async def test_without_any_answer_it_ends_in_time(autojump_clock: MockClock) -> None:
    assert await Crowd([math.inf] * 3).ask() == ()
    assert trio.current_time() == WAIT_SECONDS
    assert await Crowd([]).ask() == ()
    assert trio.current_time() == 2 * WAIT_SECONDS


async def test_who_is_expected_is_waited_for_until_there_is_an_offer(
    autojump_clock: MockClock,
) -> None:
    crowd = Crowd([])
    crowd.settles_after = 8.0
    crowd.joins_after = 5.0
    assert len(await crowd.ask()) == 1
    assert 5.0 + GATHER_SECONDS < trio.current_time() < 8.0


async def test_one_that_has_it_not_does_not_end_the_wait_for_others(
    autojump_clock: MockClock,
) -> None:
    crowd = Crowd([0.1])
    crowd.settles_after = 8.0
    crowd.answer = m.NotHave
    assert await crowd.ask() == ()
    assert trio.current_time() == 8.0


async def test_only_so_many_are_asked_at_once(autojump_clock: MockClock) -> None:
    crowd = Crowd([0.1] * (3 * MOST_ASKED_AT_ONCE))
    await crowd.ask()
    assert crowd.most_open == MOST_ASKED_AT_ONCE
    assert not crowd.open


async def test_the_silent_do_not_keep_others_from_being_asked(
    autojump_clock: MockClock,
) -> None:
    crowd = Crowd([math.inf] * MOST_ASKED_AT_ONCE + [0.1])
    assert len(await crowd.ask()) == 1
    assert trio.current_time() < WAIT_SECONDS


async def test_of_many_large_offers_the_small_ones_are_kept(
    autojump_clock: MockClock,
) -> None:
    crowd = Crowd([0.1] * 8)
    sizes = iter([9 << 20, 100, *[9 << 20] * 6])
    contents = iter(range(8))
    crowd.answer = lambda n: offer(n, bytes([next(contents)]) * next(sizes))
    offers = await crowd.ask()
    assert sum(len(each.commit) for each in offers) <= MAX_OFFER_BYTES
    assert len(offers) == 4
    assert len(offers[0].commit) == 100


async def test_a_false_name_is_blamed_and_no_offer(autojump_clock: MockClock) -> None:
    crowd = Crowd([0.1])
    crowd.answer = lambda n: m.CommitData(n, checksum_of(b"another"), b"commit")
    assert await crowd.ask() == ()
    assert crowd.dropped == list(crowd.delays)


async def test_one_that_has_it_not_is_an_answer_too(autojump_clock: MockClock) -> None:
    crowd = Crowd([0.1, math.inf])
    crowd.answer = m.NotHave
    assert await crowd.ask() == ()
    assert trio.current_time() == SILENCE_SECONDS


# -- the origin first ------------------------------------------------------------------


class Somebody(Nobody):
    @property
    def has_sources(self) -> bool:
        return True


class Slow:
    """Answers the same after some seconds each time."""

    def __init__(self, answer: str | None, seconds: float) -> None:
        self.answer = answer
        self.seconds = seconds
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        await trio.sleep(self.seconds)
        if self.answer is None:
            raise ConnectError("refused")
        return self.answer

    async def or_nothing(self) -> str | None:
        return None if self.answer is None else await self()


NOTHING = Slow(None, 0)


async def test_an_origin_that_swallows_requests_is_not_waited_for_beside_neighbours(
    autojump_clock: MockClock,
) -> None:
    others = Slow("theirs", 1)
    hole = Slow("", math.inf)
    answer = await ask_origin_first(Somebody(), hole, others.or_nothing)
    assert answer == "theirs"
    assert trio.current_time() == ORIGIN_SECONDS + 1


async def test_a_slow_origin_is_waited_for_where_nobody_else_knows(
    autojump_clock: MockClock,
) -> None:
    slow = Slow("its own", 3 * ORIGIN_SECONDS)
    assert await ask_origin_first(None, slow, NOTHING.or_nothing) == "its own"
    assert slow.asked == 1
    assert await ask_origin_first(Somebody(), slow, NOTHING.or_nothing) == "its own"
    assert slow.asked == 3


async def test_where_nobody_knows_the_error_is_the_origins(
    autojump_clock: MockClock,
) -> None:
    for neighbours in (None, Somebody()):
        with pytest.raises(ConnectError, match="refused"):
            await ask_origin_first(neighbours, Slow(None, 1), NOTHING.or_nothing)
