"""What every `Transport` must do; run on each way to reach a peer, fakes included."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
import trio

from p2p.errors import TransportClosedError, TransportError
from p2p.net.transport import Transport

# Enough for an honest machine under load; nothing here waits for it to pass.
PATIENCE_SECONDS = 20
# Socket buffers, TLS and relays on both sides may hold so much and no more.
MAX_BUFFERED_BYTES = 32 << 20
LARGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Pair:
    """Two connected ends, and how to cut the connection between them.

    Attributes:
        left, right: the ends.
        sever: makes `left` disappear as if its process had been killed.

    """

    left: Transport
    right: Transport
    sever: Callable[[], Awaitable[None]]


MakePair = Callable[[], AbstractAsyncContextManager[Pair]]


async def check_transport(make_pair: MakePair) -> None:
    """Run every check on a fresh pair; AssertionError or TooSlowError if it fails."""
    for check in CHECKS:
        await run_check(check, make_pair)


async def run_check(
    check: Callable[[Pair], Awaitable[None]], make_pair: MakePair
) -> None:
    """Run one check on a fresh pair."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with make_pair() as pair:
            await check(pair)


async def read_exactly(transport: Transport, size: int, piece: int = 1 << 16) -> bytes:
    """Read so many bytes, at most `piece` at a time."""
    data = bytearray()
    while len(data) < size:
        some = await transport.receive_some(min(piece, size - len(data)))
        assert some, f"the end came after {len(data)} of {size} bytes"
        assert len(some) <= piece
        data += some
    return bytes(data)


async def read_all(transport: Transport) -> bytes:
    """Read to the clean end."""
    data = bytearray()
    while some := await transport.receive_some():
        data += some
    return bytes(data)


async def send_for_ever(transport: Transport) -> None:
    """Send until an error."""
    while True:
        await transport.send_all(bytes(65536))


def _pattern(size: int, seed: int) -> bytes:
    block = bytes((n * 7 + seed * 31 + (n >> 8)) & 0xFF for n in range(65521))
    return (block * (size // len(block) + 1))[:size]


async def small_messages_arrive_in_order(pair: Pair) -> None:
    for size in (1, 2, 255, 16384, 16385):
        data = _pattern(size, size)
        await pair.left.send_all(data)
        assert await read_exactly(pair.right, size) == data
        await pair.right.send_all(memoryview(data))
        assert await read_exactly(pair.left, size) == data


async def sending_nothing_sends_nothing(pair: Pair) -> None:
    await pair.left.send_all(b"")
    await pair.left.send_all(bytearray(b"x"))
    assert await read_exactly(pair.right, 1) == b"x"


async def a_large_transfer_each_way_at_once_arrives_whole(pair: Pair) -> None:
    async def send(transport: Transport, data: bytes) -> None:
        await transport.send_all(data)

    async def receive(transport: Transport, data: bytes, piece: int) -> None:
        assert await read_exactly(transport, len(data), piece) == data

    there, back = _pattern(LARGE_BYTES, 1), _pattern(LARGE_BYTES, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, pair.left, there)
        nursery.start_soon(send, pair.right, back)
        nursery.start_soon(receive, pair.right, there, 1 << 20)
        nursery.start_soon(receive, pair.left, back, 5000)


async def after_half_a_close_the_other_direction_goes_on(pair: Pair) -> None:
    await pair.right.send_all(b"under ")
    await pair.right.send_all(b"way")
    assert await read_exactly(pair.left, 1) == b"u"
    await pair.left.send_all(b"last")
    await pair.left.send_eof()
    await pair.left.send_eof()
    assert await read_all(pair.right) == b"last"
    assert await pair.right.receive_some() == b""
    await pair.right.send_all(b", and more")
    assert await read_exactly(pair.left, 18) == b"nder way, and more"
    await pair.right.send_eof()
    assert await read_all(pair.left) == b""
    assert await pair.left.receive_some() == b""


async def nothing_is_sent_after_the_end_was_said(pair: Pair) -> None:
    await pair.left.send_eof()
    with pytest.raises(TransportClosedError):
        await pair.left.send_all(b"too late")


async def last_words_are_heard_while_the_other_side_talks(pair: Pair) -> None:
    # More than the listener's buffers hold, and read slowly: when the speaker closes,
    # a part has not left yet, and what the other side says lies unread.
    words = _pattern(LARGE_BYTES, 3)

    async def talk() -> None:
        with pytest.raises(TransportClosedError):
            await send_for_ever(pair.right)

    async def speak() -> None:
        await pair.left.send_all(words)
        await pair.left.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        await pair.left.receive_some()
        nursery.start_soon(speak)
        assert await read_exactly(pair.right, len(words), piece=4096) == words
        assert await pair.right.receive_some() == b""
        await pair.right.aclose()


async def both_sides_may_close_at_once(pair: Pair) -> None:
    await pair.left.send_all(b"unread")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.left.aclose)
        nursery.start_soon(pair.right.aclose)
    await pair.left.aclose()


async def closing_ends_in_time_when_the_other_side_does_nothing(pair: Pair) -> None:
    with trio.fail_after(PATIENCE_SECONDS / 2):
        await pair.left.aclose()


async def a_closed_transport_says_so(pair: Pair) -> None:
    pair.left.abort()
    with pytest.raises(TransportClosedError):
        await pair.left.send_all(b"x")
    with pytest.raises(TransportClosedError):
        await pair.left.receive_some()
    with pytest.raises(TransportClosedError):
        await pair.left.send_eof()
    pair.left.abort()
    await pair.left.aclose()


async def closing_wakes_who_waits(pair: Pair) -> None:
    async def wait() -> None:
        with pytest.raises(TransportClosedError):
            await pair.left.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(pair.left.aclose)
        assert await read_all(pair.right) == b""
        await pair.right.aclose()


async def aborting_wakes_who_waits_and_is_no_clean_end(pair: Pair) -> None:
    async def wait() -> None:
        with pytest.raises(TransportClosedError):
            await pair.left.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        pair.left.abort()
    with pytest.raises(TransportError):
        await read_all(pair.right)


async def a_severed_connection_is_no_clean_end(pair: Pair) -> None:
    await pair.left.send_all(b"half a mess")
    assert await read_exactly(pair.right, 11) == b"half a mess"
    await pair.sever()
    with pytest.raises(TransportClosedError):
        await pair.right.receive_some()
    with pytest.raises(TransportClosedError):
        await send_for_ever(pair.right)


async def a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await pair.right.receive_some()
        assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.right.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await pair.left.send_all(b"still here")
    assert await read_exactly(pair.right, 10, piece=3) == b"still here"


async def a_sender_waits_while_nobody_reads(pair: Pair) -> None:
    sent = 0

    async def send() -> None:
        nonlocal sent
        for _ in range(MAX_BUFFERED_BYTES // 65536):
            await pair.left.send_all(bytes(65536))
            sent += 65536
        raise AssertionError("a sender filled memory without a reader")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        seen = -1
        while seen < sent:
            seen = sent
            await trio.testing.wait_all_tasks_blocked(0.1)
        await read_exactly(pair.right, seen)
        while sent == seen:
            await read_exactly(pair.right, 65536)
        nursery.cancel_scope.cancel()


async def a_cancelled_send_ends_the_session_for_both(pair: Pair) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_for_ever, pair.left)
        await trio.testing.wait_all_tasks_blocked(0.1)
        nursery.cancel_scope.cancel()
    with pytest.raises(TransportClosedError):
        await pair.left.send_all(b"more")
    with pytest.raises(TransportClosedError):
        await pair.left.receive_some()
    await pair.left.aclose()
    with pytest.raises(TransportError):
        await read_all(pair.right)


async def closing_while_another_task_sends_ends_abruptly(pair: Pair) -> None:
    async def send() -> None:
        with pytest.raises(TransportClosedError):
            await send_for_ever(pair.left)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.1)
        await pair.left.aclose()
    with pytest.raises(TransportError):
        await read_all(pair.right)


async def two_tasks_cannot_do_the_same_at_once(pair: Pair) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.left.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await pair.left.receive_some()
        nursery.cancel_scope.cancel()


async def a_peer_that_stalls_keeps_nobody_from_leaving(pair: Pair) -> None:
    with trio.move_on_after(0.05) as scope:
        await pair.left.receive_some()
    assert scope.cancelled_caught
    async with pair.left:
        pass


CHECKS = (
    small_messages_arrive_in_order,
    sending_nothing_sends_nothing,
    a_large_transfer_each_way_at_once_arrives_whole,
    after_half_a_close_the_other_direction_goes_on,
    nothing_is_sent_after_the_end_was_said,
    last_words_are_heard_while_the_other_side_talks,
    both_sides_may_close_at_once,
    closing_ends_in_time_when_the_other_side_does_nothing,
    a_closed_transport_says_so,
    closing_wakes_who_waits,
    aborting_wakes_who_waits_and_is_no_clean_end,
    a_severed_connection_is_no_clean_end,
    a_cancelled_receive_loses_nothing,
    a_sender_waits_while_nobody_reads,
    a_cancelled_send_ends_the_session_for_both,
    closing_while_another_task_sends_ends_abruptly,
    two_tasks_cannot_do_the_same_at_once,
    a_peer_that_stalls_keeps_nobody_from_leaving,
)
