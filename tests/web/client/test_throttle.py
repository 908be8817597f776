"""All transfers together keep below a rate, which may change while they run."""

import os
from collections.abc import AsyncIterator

import pytest
import trio

from p2p.rate import BURST_SECONDS, on_wire
from p2p.web.client.fetch import Fetcher, Inbox
from p2p.web.client.lane import Chunk, Done, Failed
from p2p.web.client.request import Access, Request
from tests.web.client.servers import answer, serving

ACCESS = Access(connect_seconds=2, low_speed_seconds=2)
RATE = 1e6
KIB = 1 << 10


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


def start(inbox: Inbox, url: str, count: int) -> None:
    for _ in range(count):
        request = Request(
            url=url, max_bytes=64 << 20, access=ACCESS, want_headers=False
        )
        inbox.start(request)


async def finish(inbox: Inbox, count: int) -> float:
    """Take everything; how long that took."""
    began = trio.current_time()
    while count:
        for event in await inbox.next_events():
            match event:
                case Chunk(_, data):
                    inbox.consumed(len(data))
                case Done(_, response):
                    inbox.consumed(len(response.body))
                    count -= 1
                case Failed(_, error):
                    raise error
    return trio.current_time() - began


@pytest.mark.parametrize(
    "count, size", [(200, 5 * KIB), (8, 128 * KIB), (1, 1024 * KIB)]
)
async def test_transfers_share_the_rate_whatever_their_size(
    fetcher: Fetcher, count: int, size: int
) -> None:
    async with serving(answer(200, os.urandom(size))) as server:
        inbox = fetcher.inbox()
        fetcher.limit(RATE)
        start(inbox, server.url, count)
        took = await finish(inbox, count)
    least = count * on_wire(size) / RATE - BURST_SECONDS
    assert 0.9 * least < took < 1.2 * least + BURST_SECONDS


async def test_another_rate_holds_at_once(fetcher: Fetcher) -> None:
    async with serving(answer(200, os.urandom(512 * KIB))) as server:
        inbox = fetcher.inbox()
        fetcher.limit(RATE / 100)
        start(inbox, server.url, 4)
        with trio.move_on_after(0.5) as slow:
            await finish(inbox, 1)
        assert slow.cancelled_caught
        fetcher.limit(None)
        assert await finish(inbox, 4) < 1.0


async def test_a_rate_holds_for_what_runs_already(fetcher: Fetcher) -> None:
    async with serving(answer(200, os.urandom(2048 * KIB))) as server:
        inbox = fetcher.inbox()
        start(inbox, server.url, 8)
        while not await inbox.next_events():
            pass
        fetcher.limit(RATE)
        with trio.move_on_after(1.0) as slow:
            await finish(inbox, 8)
        assert slow.cancelled_caught


async def test_slower_than_impatience_is_slow_and_no_failure(fetcher: Fetcher) -> None:
    # Each of the transfers waits for its turn longer than `low_speed_seconds`.
    rate = 16 * KIB
    access = Access(connect_seconds=2, low_speed_seconds=1, low_speed_bytes=1000)
    async with serving(answer(200, os.urandom(24 * KIB))) as server:
        inbox = fetcher.inbox()
        fetcher.limit(rate)
        for _ in range(3):
            inbox.start(Request(url=server.url, max_bytes=64 * KIB, access=access))
        took = await finish(inbox, 3)
    assert took > 3.0
