"""What all sessions share: rates, turns, and marks on their sockets."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2p import qos
from p2p.errors import ConfigError, ConnectError
from p2p.net.identity import open_identity
from p2p.net.session import DEAD_AFTER_SECONDS, Session
from p2p.net.tls import Endpoint
from p2p.net.traffic import Traffic, Upload
from p2p.rate import BURST_SECONDS, on_wire
from p2p.wire import messages as m
from p2p.wire.limits import UNIT_BYTES
from tests.net.pairs import memory_pair, tcp_pair
from tests.net.pki import right_clock
from tests.net.test_session import LEFT, NAME, RIGHT, Side, until

RATE = 32_000.0  # 256 kbit/s


@asynccontextmanager
async def talking(upload: Upload, count: int) -> AsyncIterator[list[tuple[Side, Side]]]:
    """So many sessions whose right side, the giver, shares `upload`."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upload.run)
        pairs = []
        for _ in range(count):
            pair = await nursery.start(hold_pair)
            left = Side.of(pair.left, RIGHT, 1)
            right = Side(Session(pair.right, LEFT, upload), 0)
            nursery.start_soon(left.run)
            nursery.start_soon(right.run)
            pairs.append((left, right))
        await until(lambda: all(a.heard and b.heard for a, b in pairs))
        yield pairs
        nursery.cancel_scope.cancel()


async def hold_pair(task_status: trio.TaskStatus[object]) -> None:
    async with memory_pair() as pair:
        task_status.started(pair)
        await trio.sleep_forever()


def give_unit(left: Side, right: Side) -> None:
    """Have the left ask for a unit, and the right answer at once."""

    def answer(message: m.Message) -> None:
        if isinstance(message, m.GetUnit):
            right.session.send(m.Unit(message.request, bytes(UNIT_BYTES)))

    right.answer = answer
    request = left.session.connection.new_request()
    left.session.send(m.GetUnit(request, NAME, 0, UNIT_BYTES))


async def until_heard(side: Side, kind: type[m.Message]) -> None:
    heard = trio.Event()

    def answer(message: m.Message) -> None:
        if isinstance(message, kind):
            heard.set()

    side.answer = answer
    if not any(isinstance(message, kind) for message in side.heard):
        await heard.wait()


async def test_sessions_share_the_rate_and_all_get_their_turn(
    autojump_clock: MockClock,
) -> None:
    upload = Upload()
    upload.change(RATE)
    async with talking(upload, 4) as pairs:
        began = trio.current_time()
        for pair in pairs:
            give_unit(*pair)
        ends = []
        async with trio.open_nursery() as nursery:

            async def end(side: Side) -> None:
                await until_heard(side, m.Unit)
                ends.append(trio.current_time() - began)

            for left, _ in pairs:
                nursery.start_soon(end, left)
        assert ends[-1] == pytest.approx(4 * on_wire(UNIT_BYTES) / RATE, rel=0.03)
        assert ends[0] > 0.97 * ends[-1]


async def test_control_overtakes_bulk_that_waits_for_its_turn(
    autojump_clock: MockClock,
) -> None:
    upload = Upload()
    upload.change(RATE)
    async with talking(upload, 1) as [(left, right)]:
        give_unit(left, right)
        await trio.sleep(1.0)
        right.session.send(m.Holdings())
        await trio.sleep(0.1)
        assert any(isinstance(message, m.Holdings) for message in left.heard)
        assert right.session.connection.queued_bulk_bytes > UNIT_BYTES // 2


async def test_another_rate_holds_at_once_for_what_waits(
    autojump_clock: MockClock,
) -> None:
    upload = Upload()
    upload.change(RATE / 100)
    async with talking(upload, 1) as [(left, right)]:
        give_unit(left, right)
        await trio.sleep(5.0)
        upload.change(None)
        with trio.fail_after(0.2):
            await until_heard(left, m.Unit)


async def test_a_farewell_does_not_wait_for_a_turn(autojump_clock: MockClock) -> None:
    upload = Upload()
    upload.change(RATE / 100)
    async with talking(upload, 1) as [(left, right)]:
        give_unit(left, right)
        await trio.sleep(1.0)
        right.session.leave(m.Farewell.LEAVING)
        with trio.fail_after(1.0):
            await left.ended.wait()
        assert left.heard[-1] == m.Bye(m.Farewell.LEAVING)


@asynccontextmanager
async def met(tmp_path: Path, traffic: Traffic) -> AsyncIterator[tuple[Side, Side]]:
    """Two devices over loopback TCP; the left one has this traffic."""
    left = Endpoint(open_identity(str(tmp_path / "left")), right_clock, traffic)
    right = Endpoint(open_identity(str(tmp_path / "right")), right_clock)
    async with tcp_pair() as (dialler, accepter), trio.open_nursery() as nursery:
        sides: dict[int, Side] = {}

        async def meet(endpoint: Endpoint, sock: trio.SocketStream, dial: int) -> None:
            contact = await endpoint.meet(sock, "?", server_side=not dial)
            upload = endpoint.traffic.upload
            sides[dial] = Side(Session(contact.stream, contact.peer, upload), dial)

        async with trio.open_nursery() as meeting:
            meeting.start_soon(meet, left, dialler, 1)
            meeting.start_soon(meet, right, accepter, 0)
        for side in sides.values():
            nursery.start_soon(side.run)
        for side in sides.values():
            await until_heard(side, m.Hello)
        yield sides[1], sides[0]
        nursery.cancel_scope.cancel()


async def test_reading_slowly_keeps_the_rate_and_the_session(tmp_path: Path) -> None:
    rate = 400_000.0
    traffic = Traffic()
    async with met(tmp_path, traffic) as (left, right):
        traffic.change(upload=None, download=rate, dscp=None)
        began = trio.current_time()
        with trio.fail_after(20):
            give_unit(left, right)
            await until_heard(left, m.Unit)
        took = trio.current_time() - began
        least = on_wire(UNIT_BYTES) / rate - BURST_SECONDS
        assert least * 0.95 < took < least + 2 * BURST_SECONDS


async def test_who_reads_slower_than_pings_pass_is_not_taken_for_dead(
    tmp_path: Path,
) -> None:
    # So slow that the giver's PING would wait behind its bulk until too late.
    rate = UNIT_BYTES / (DEAD_AFTER_SECONDS + 1)
    traffic = Traffic()
    traffic.change(upload=None, download=rate, dscp=None)
    async with met(tmp_path, traffic) as (left, right):
        left.session.on_quiet = lambda: left.session.send(m.Holdings())
        with trio.fail_after(60):
            give_unit(left, right)
            await until_heard(left, m.Unit)
        assert right.error is None


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_marks_change_on_connections_that_are_up(family: int) -> None:
    traffic = Traffic()
    traffic.change(upload=None, download=None, dscp=qos.LOWER_EFFORT)
    with trio.socket.socket(family, socket.SOCK_STREAM) as sock:
        stream = trio.SocketStream(sock)
        traffic.add(stream)
        assert marks(sock) == {4}
        traffic.change(upload=None, download=None, dscp=8)
        assert marks(sock) == {32}
        traffic.change(upload=None, download=None, dscp=None)
        assert marks(sock) == {0}


def marks(sock: trio.socket.SocketType) -> set[int]:
    found = {sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)}
    if sock.family == socket.AF_INET6:
        found.add(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS))
    return found


@pytest.mark.parametrize(
    "text, dscp", [("LE", 1), ("le", 1), ("CS1", 8), ("AF41", 34), ("46", 46)]
)
def test_priorities_have_names_and_numbers(text: str, dscp: int) -> None:
    assert qos.parse_dscp(text, where="dscp") == dscp
    assert qos.parse_dscp(qos.format_dscp(dscp), where="dscp") == dscp


def test_no_priority_is_none() -> None:
    assert qos.parse_dscp("none", where="dscp") is None
    assert qos.format_dscp(None) == "none"


@pytest.mark.parametrize("text", ["", "64", "-1", "low", "AF44", "1.0"])
def test_what_is_no_priority_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="dscp"):
        qos.parse_dscp(text, where="dscp")


async def test_connections_from_avoided_addresses_end_and_are_refused(
    tmp_path: Path,
) -> None:
    traffic = Traffic()
    async with met(tmp_path, traffic) as (left, right):
        traffic.avoid(["192.0.2.1"])
        assert not left.ended.is_set()
        traffic.avoid(["127.0.0.1"])
        with trio.fail_after(10):
            await left.ended.wait()
            await right.ended.wait()
    left_end = Endpoint(open_identity(str(tmp_path / "left")), right_clock, traffic)
    async with tcp_pair() as (dialler, _):
        with pytest.raises(ConnectError, match="metered"):
            await left_end.meet(dialler, "?", server_side=False)
