"""Answers keep below the rate that they share."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from p2p.web.server.answer import Answer
from p2p.web.server.exchange import Request, Response
from p2p.web.server.limits import Limits
from p2p.web.server.pace import SLICE_BYTES, Pace, PacedLink
from tests.web.server.talk import serving


class Sink:
    """A link that takes everything, and when it did."""

    def __init__(self) -> None:
        self.peer = "somebody"
        self.calls: list[str] = []
        self.sent: list[tuple[float, int]] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def receive(self) -> bytes:
        return b"came"

    def send_now(self, data: bytes) -> int:
        raise AssertionError(data)

    async def turn(self, size: int) -> int:
        return size

    async def send_some(self, data: memoryview) -> int:
        """Take up to half a slice at a time."""
        size = min(len(data), SLICE_BYTES // 2)
        self.sent.append((trio.current_time(), size))
        return size

    async def send(self, data: bytes) -> None:
        self.calls.append(f"send {data!r}")

    async def send_end(self) -> None:
        self.calls.append("end")

    def close(self) -> None:
        self.calls.append("close")


async def send_all(links: Sequence[PacedLink], data: bytes) -> None:
    async with trio.open_nursery() as nursery:
        for link in links:
            answer = Answer(
                link, Request("GET", "/"), Response(200, (), data), last=True
            )
            nursery.start_soon(answer.send, lambda _begins: None)


async def test_all_clients_together_keep_the_rate_and_take_turns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pace = Pace(1e6)
    sinks = [Sink(), Sink()]
    links = [PacedLink(sink, pace) for sink in sinks]
    began = trio.current_time()
    await send_all(links, bytes(1_000_000))
    assert trio.current_time() - began == pytest.approx(2.0, abs=0.1)
    for sink in sinks:
        assert 0 < sum(size for _, size in sink.sent) - 1_000_000 < 200  # the head
        assert max(size for _, size in sink.sent) <= SLICE_BYTES
        # Half of it after half of the time: nobody is served before the other.
        early = sum(size for when, size in sink.sent if when < began + 1.0)
        assert early == pytest.approx(500_000, rel=0.1)


async def test_a_pause_saves_up_no_more_than_a_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pace = Pace(1e6)
    await pace.wait(1000)
    await trio.sleep(60)
    began = trio.current_time()
    await pace.wait(40_000)
    assert trio.current_time() == began
    await pace.wait(1_000_000)
    assert trio.current_time() - began == pytest.approx(1.0, abs=0.1)


async def test_waiting_for_the_rate_is_no_fault_of_the_client() -> None:
    """However long: a piece waits here for many times as long as a client may."""

    async def large(_request: Request) -> Response:
        return Response(200, (), bytes(8 * SLICE_BYTES))

    limits = Limits(stall_seconds=0.1, bytes_per_second=16 * SLICE_BYTES)
    async with serving(large, limits=limits) as server, trio.open_nursery() as nursery:

        async def ask() -> None:
            answer = await server.ask("GET", "/")
            assert len(answer.body) == 8 * SLICE_BYTES

        for _ in range(4):
            nursery.start_soon(ask)


async def test_the_rest_passes_through() -> None:
    sink = Sink()
    link = PacedLink(sink, Pace(1e9))
    await link.start()
    assert await link.receive() == b"came"
    assert link.send_now(b"x") == 0
    await link.send(b"x")
    await link.send_end()
    link.close()
    assert sink.calls == ["start", "send b'x'", "end", "close"]
    assert link.peer == "somebody"
