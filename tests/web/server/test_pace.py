"""Answers keep below the rate that they share."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from p2p.errors import ConfigError
from p2p.web.server.pace import SLICE_BYTES, Pace, PacedLink, parse_rate


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

    async def send(self, data: bytes | memoryview) -> None:
        self.sent.append((trio.current_time(), len(data)))

    async def send_end(self) -> None:
        self.calls.append("end")

    def close(self) -> None:
        self.calls.append("close")


@pytest.mark.parametrize(
    "text, rate",
    [("8bit", 1), ("500kbit", 62_500), ("10Mbit", 1.25e6), ("1.5 gbit", 187.5e6)],
)
def test_rates_are_written_as_tc_has_them(text: str, rate: float) -> None:
    assert parse_rate(text, where="--rate") == rate


@pytest.mark.parametrize("text", ["", "0mbit", "10", "-1mbit", "10mbps", "1e9bit"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--rate"):
        parse_rate(text, where="--rate")


async def send_all(links: Sequence[PacedLink], data: bytes) -> None:
    async with trio.open_nursery() as nursery:
        for link in links:
            nursery.start_soon(link.send, data)


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
        assert sum(size for _, size in sink.sent) == 1_000_000
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


async def test_the_rest_passes_through() -> None:
    sink = Sink()
    link = PacedLink(sink, Pace(1e9))
    await link.start()
    assert await link.receive() == b"came"
    assert link.send_now(b"x") == 0
    await link.send_end()
    link.close()
    assert sink.calls == ["start", "end", "close"]
    assert link.peer == "somebody"
