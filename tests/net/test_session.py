"""One session from HELLO to BYE, over streams in memory and under a mock clock."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2p.errors import (
    RemoteProtocolError,
    TransportClosedError,
    TransportError,
    TransportTimeoutError,
    single_error,
)
from p2p.net.session import (
    DEAD_AFTER_SECONDS,
    IDLE_SECONDS,
    LEAVE_SECONDS,
    Session,
)
from p2p.net.transport import Transport
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire import layout
from p2p.wire import messages as m
from p2p.wire.bulk import UnitHead
from p2p.wire.frame import control_frame, slice_header
from p2p.wire.limits import UNIT_BYTES
from tests.net.pairs import MemoryTransport, Pipe, memory_pair

LEFT, RIGHT = m.DeviceId("1" * 64), m.DeviceId("2" * 64)
NAME = ObjectName(Checksum("ab" * 32), ObjectType.FILE)


def hello(dial: int = 0) -> m.Hello:
    return m.Hello(software="test", site="", instance=b"i" * 16, epoch=1, dial=dial)


@dataclass
class Side:
    """A session and what it heard."""

    session: Session
    dial: int
    heard: list[m.Message] = field(default_factory=list)
    counted: int = 0
    error: Exception | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    answer: Callable[[m.Message], None] = lambda _: None

    @classmethod
    def of(cls, stream: Transport, peer: m.DeviceId, dial: int = 0) -> "Side":
        return cls(Session(stream, peer), dial)

    def receive(self, message: m.Message) -> None:
        self.heard.append(message)
        self.answer(message)

    def count(self, size: int) -> None:
        self.counted += size

    async def run(self) -> None:
        try:
            await self.session.run(hello(self.dial), self.receive, self.count)
        except* (TransportError, RemoteProtocolError) as group:
            self.error = single_error(group)
        self.ended.set()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await wait_all_tasks_blocked()


async def test_both_sides_hear_each_others_hello_and_goodbye(
    autojump_clock: MockClock,
) -> None:
    async with memory_pair() as pair:
        left, right = Side.of(pair.left, RIGHT, 1), Side.of(pair.right, LEFT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.run)
            nursery.start_soon(right.run)
            await until(lambda: bool(left.heard and right.heard))
            assert left.session.connection.is_up
            left.session.leave(m.Farewell.LEAVING, "bye")
        assert isinstance(left.heard[0], m.Hello)
        assert right.heard[-1] == m.Bye(m.Farewell.LEAVING, "bye")
        assert right.counted == right.session.received_bytes > 0
        assert left.error is None
        assert right.error is None
        assert "11111111" not in repr(left.session)
        assert "22222222" in repr(left.session)


async def test_a_second_farewell_changes_nothing(autojump_clock: MockClock) -> None:
    async with memory_pair() as pair:
        left, right = Side.of(pair.left, RIGHT, 1), Side.of(pair.right, LEFT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.run)
            nursery.start_soon(right.run)
            await until(lambda: bool(left.heard and right.heard))
            left.session.leave(m.Farewell.LEAVING)
            left.session.leave(m.Farewell.MISBEHAVED)
        assert right.heard[-1] == m.Bye(m.Farewell.LEAVING)


async def test_packets_of_a_slice_are_gathered_and_words_are_not(
    autojump_clock: MockClock,
) -> None:
    """A packet each millisecond, as a link of 10 Mbit brings them."""
    async with memory_pair() as pair:
        session = Session(pair.right, LEFT)
        reads: list[int] = []
        send, heard = trio.open_memory_channel[m.Message](9)

        async def run() -> None:
            await session.run(hello(), send.send_nowait, reads.append)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await pair.left.send_all(control_frame(layout.encode(hello(1))))
            await heard.receive()
            asked = session.connection.new_request()
            session.send(m.GetUnit(asked, NAME, 0, UNIT_BYTES))
            head = control_frame(layout.encode(UnitHead(asked, 50_000)))
            stream = head + slice_header(asked, 50_000) + bytes(50_000)
            reads.clear()
            for start in range(0, len(stream), 1000):
                await pair.left.send_all(stream[start : start + 1000])
                await trio.sleep(0.001)
            assert await heard.receive() == m.Unit(asked, bytes(50_000))
            assert len(reads) < 10
            started = trio.current_time()
            for token in range(5):
                ping = control_frame(layout.encode(m.Ping(token)))
                await pair.left.send_all(ping)
                assert await heard.receive() == m.Ping(token)
            assert trio.current_time() == started
            nursery.cancel_scope.cancel()


async def test_large_answers_pass_slice_by_slice_and_room_comes_back(
    autojump_clock: MockClock,
) -> None:
    async with memory_pair() as pair:
        left, right = Side.of(pair.left, RIGHT, 1), Side.of(pair.right, LEFT)
        rooms: list[int] = []

        async def answer_all() -> None:
            for _ in range(8):
                await until(lambda: any(isinstance(x, m.GetUnit) for x in right.heard))
                request = next(x for x in right.heard if isinstance(x, m.GetUnit))
                right.heard.remove(request)
                await right.session.wait_for_room()
                rooms.append(right.session.connection.queued_bulk_bytes)
                data = bytes([request.request]) * UNIT_BYTES
                right.session.send(m.Unit(request.request, data))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.run)
            nursery.start_soon(right.run)
            await until(lambda: bool(left.heard and right.heard))
            nursery.start_soon(answer_all)
            for unit in range(8):
                number = left.session.connection.new_request()
                left.session.send(
                    m.GetUnit(number, NAME, unit * UNIT_BYTES, UNIT_BYTES)
                )
            await until(lambda: sum(isinstance(x, m.Unit) for x in left.heard) == 8)
            nursery.cancel_scope.cancel()
        units = [x for x in left.heard if isinstance(x, m.Unit)]
        assert [unit.data[0] for unit in units] == list(range(1, 9))
        assert max(rooms) <= 2 * UNIT_BYTES


class SlowTransport(MemoryTransport):
    """Takes 100 kB a second."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(len(data) / 100_000)
        await super().send_all(data)


async def test_less_is_kept_at_hand_for_a_peer_that_takes_it_slowly(
    autojump_clock: MockClock,
) -> None:
    there, back = Pipe(), Pipe()
    left = Side.of(MemoryTransport(incoming=there, outgoing=back), RIGHT, 1)
    right = Side.of(SlowTransport(incoming=back, outgoing=there), LEFT)
    session = right.session
    at_first = session.ahead_bytes
    all_given = trio.Event()

    def ask(message: m.Message) -> None:
        if isinstance(message, m.Hello):
            for _ in range(4):
                number = left.session.connection.new_request()
                left.session.send(m.GetUnit(number, NAME, 0, UNIT_BYTES))

    def give(message: m.Message) -> None:
        if isinstance(message, m.GetUnit):
            session.send(m.Unit(message.request, bytes(UNIT_BYTES)))
            if message.request == 4:
                all_given.set()

    left.answer, right.answer = ask, give
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.run)
        nursery.start_soon(right.run)
        await all_given.wait()
        await session.wait_for_room()
        assert 0 < session.connection.queued_bulk_bytes <= session.ahead_bytes
        assert session.ahead_bytes < at_first < 2 * UNIT_BYTES
        nursery.cancel_scope.cancel()


async def test_a_peer_that_talks_nonsense_is_told_so_and_left(
    autojump_clock: MockClock,
) -> None:
    async with memory_pair() as pair:
        right = Side.of(pair.right, LEFT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(right.run)
            await pair.left.send_all(b"GET / HTTP/1.1\r\n\r\n" * 10)
            said = b""
            with trio.move_on_after(10):
                while data := await pair.left.receive_some():
                    said += data
        assert isinstance(right.error, RemoteProtocolError)
        assert len(said) > 20


async def test_a_peer_that_vanishes_is_an_error(autojump_clock: MockClock) -> None:
    async with memory_pair() as pair:
        right = Side.of(pair.right, LEFT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(right.run)
            await until(lambda: right.session.sent_bytes > 0)
            await pair.sever()
        assert isinstance(right.error, TransportClosedError)


async def test_a_silent_peer_is_given_up_in_time(autojump_clock: MockClock) -> None:
    async with memory_pair() as pair:
        right = Side.of(pair.right, LEFT)
        started = trio.current_time()
        await right.run()
        assert isinstance(right.error, TransportTimeoutError)
        assert trio.current_time() - started <= DEAD_AFTER_SECONDS + 3


async def test_idle_peers_stay_together_by_pinging(autojump_clock: MockClock) -> None:
    async with memory_pair() as pair:
        left, right = Side.of(pair.left, RIGHT, 1), Side.of(pair.right, LEFT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.run)
            nursery.start_soon(right.run)
            await trio.sleep(10 * (IDLE_SECONDS + DEAD_AFTER_SECONDS))
            assert left.session.connection.is_up
            left.session.leave(m.Farewell.IDLE)
        assert left.error is None
        assert right.error is None


@pytest.mark.parametrize("reason", list(m.Farewell))
async def test_every_reason_to_leave_arrives(
    autojump_clock: MockClock, reason: m.Farewell
) -> None:
    async with memory_pair() as pair:
        left, right = Side.of(pair.left, RIGHT, 1), Side.of(pair.right, LEFT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.run)
            nursery.start_soon(right.run)
            await until(lambda: bool(left.heard and right.heard))
            right.session.leave(reason)
        assert left.heard[-1] == m.Bye(reason)


async def talk_and_read_nothing(stream: Transport) -> None:
    """Say HELLO and then something every second, and never listen."""
    said: list[layout.Plain] = [hello(1), *[m.Holdings()] * 600]
    for message in said:
        await stream.send_all(control_frame(layout.encode(message)))
        await trio.sleep(1)


async def test_a_peer_that_never_reads_is_left_and_nobody_who_sends_is_hurt(
    autojump_clock: MockClock,
) -> None:
    async with memory_pair() as pair, trio.open_nursery() as nursery:
        right = Side.of(pair.right, LEFT)
        nursery.start_soon(talk_and_read_nothing, pair.left)
        nursery.start_soon(right.run)
        await until(lambda: right.session.connection.is_up)
        member = 0
        while right.session.connection.is_up:
            member += 1
            right.session.send(m.Record(m.DeviceId(f"{member:064x}"), 1, 1, bytes(512)))
            if not member % 100:
                await wait_all_tasks_blocked()
        await until(lambda: right.error is not None)
        assert isinstance(right.error, TransportTimeoutError)
        assert "does not read" in str(right.error)
        nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_read_the_farewell_is_left_all_the_same(
    autojump_clock: MockClock,
) -> None:
    async with memory_pair() as pair, trio.open_nursery() as nursery:
        right = Side.of(pair.right, LEFT)
        nursery.start_soon(talk_and_read_nothing, pair.left)
        nursery.start_soon(right.run)
        await until(lambda: right.session.connection.is_up)
        for member in range(3000):  # more than the stream holds
            await wait_all_tasks_blocked()
            right.session.send(m.Record(m.DeviceId(f"{member:064x}"), 1, 1, bytes(512)))
            if right.session.connection.queued_control_bytes > 100_000:
                break
        right.session.leave(m.Farewell.MISBEHAVED)
        started = trio.current_time()
        await right.ended.wait()
        assert isinstance(right.error, TransportTimeoutError)
        assert "last words" in str(right.error)
        assert trio.current_time() - started <= LEAVE_SECONDS + 2
        nursery.cancel_scope.cancel()


async def test_any_reason_can_be_told(autojump_clock: MockClock) -> None:
    async with memory_pair() as pair:
        left, right = Side.of(pair.left, RIGHT, 1), Side.of(pair.right, LEFT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.run)
            nursery.start_soon(right.run)
            await until(lambda: bool(left.heard and right.heard))
            right.session.leave(m.Farewell.OTHER, "ä\n" * 1000)
        bye = left.heard[-1]
        assert isinstance(bye, m.Bye)
        assert bye.text.startswith("ä?ä?")
