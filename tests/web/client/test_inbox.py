"""Transfers as a consumer sees them: batches, windows, cancelling, the end."""

import os
import resource
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from p2p.errors import (
    FormatError,
    TransportClosedError,
)
from p2p.web.client.engine import Limits
from p2p.web.client.failure import ResumeRefusedError
from p2p.web.client.fetch import Fetcher, Inbox
from p2p.web.client.intake import PIECE_BYTES
from p2p.web.client.lane import Chunk, Done, Event, Failed
from p2p.web.client.request import Access, Request
from p2p.web.client.transfer import Transfer
from tests.require import require
from tests.servers import StartNginx
from tests.web.client.servers import Exchange, answer, files, serving

ACCESS = Access(connect_seconds=2, low_speed_seconds=2)
MIB = 1 << 20


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


def get(url: str, *, max_bytes: int = 64 * MIB) -> Request:
    return Request(url=url, max_bytes=max_bytes, access=ACCESS, want_headers=False)


async def finish(inbox: Inbox, transfer: Transfer) -> tuple[bytes, Event]:
    """Take a transfer's body to its end, consuming as it comes."""
    parts: list[bytes] = []
    while True:
        for event in await inbox.next_events():
            assert event.transfer is transfer
            match event:
                case Chunk(_, data):
                    assert len(data) <= PIECE_BYTES
                    parts.append(data)
                    inbox.consumed(len(data))
                case Done(_, response):
                    inbox.consumed(len(response.body))
                    return b"".join([*parts, response.body]), event
                case Failed():
                    return b"".join(parts), event


# -- the window ------------------------------------------------------------------------


async def test_a_long_body_comes_in_pieces_in_order(fetcher: Fetcher) -> None:
    body = os.urandom(5 * PIECE_BYTES)
    async with serving(answer(200, body)) as server:
        inbox = fetcher.inbox()
        transfer = inbox.start(get(server.url))
        data, end = await finish(inbox, transfer)
    assert data == body
    assert isinstance(end, Done)
    assert len(end.response.body) == PIECE_BYTES
    assert end.response.received == len(body)


async def test_what_is_not_consumed_stops_the_transfer_and_not_the_others(
    fetcher: Fetcher,
) -> None:
    sent = 0

    async def endless(exchange: Exchange) -> None:
        nonlocal sent
        exchange.hang_up()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
        while True:
            await exchange.send(bytes(1 << 16))
            sent += 1 << 16

    async with serving(files({"/small": b"s"}, fallback=endless)) as server:
        inbox = fetcher.inbox(window_bytes=MIB)
        inbox.start(get(f"{server.url}/endless", max_bytes=1 << 40))
        got = 0
        while got < MIB:
            for event in await inbox.next_events():
                assert isinstance(event, Chunk)
                got += len(event.data)
        await trio.testing.wait_all_tasks_blocked(0.05)
        # The window, what waits in the fetcher, and what the kernel buffers.
        assert got < 2 * MIB
        before = sent
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sent == before < 24 * MIB
        for _ in range(3):
            assert (await fetcher.fetch(get(f"{server.url}/small"))).body == b"s"
        inbox.consumed(got)
        assert isinstance((await inbox.next_events())[0], Chunk)


async def test_a_full_inbox_starts_nothing_until_it_has_room(fetcher: Fetcher) -> None:
    async with serving(answer(200, bytes(1000))) as server:
        inbox = fetcher.inbox(window_bytes=5000)
        for _ in range(100):
            inbox.start(get(server.url))
        seen = 0
        while seen < 5:
            seen += len(await inbox.next_events())
        await trio.testing.wait_all_tasks_blocked(0.05)
        asked = len(server.asked)
        assert asked <= 5 + 8  # as many as may run at once may overshoot
        inbox.consumed(1000 * seen)
        while seen < 100:
            for _ in await inbox.next_events():
                seen += 1
                inbox.consumed(1000)
    assert len(server.asked) == 100


class Inflate:
    """A decoder like any other, for a stream of zlib's."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj()
        self.out = 0

    def feed(self, data: bytes, /) -> Iterator[bytes]:
        while data:
            piece = self._inflater.decompress(data, 1 << 16)
            self.out += len(piece)
            yield piece
            data = self._inflater.unconsumed_tail

    def finish(self) -> None:
        if not self._inflater.eof:
            raise FormatError("not the end")


async def test_few_bytes_that_inflate_to_many_are_inflated_as_they_are_consumed(
    fetcher: Fetcher,
) -> None:
    body = zlib.compress(bytes(32 * MIB))
    assert len(body) < 40_000
    async with serving(answer(200, body)) as server:
        inbox = fetcher.inbox(window_bytes=MIB)
        codec = Inflating()
        transfer = inbox.start(get(server.url), codec=codec)
        first = await inbox.next_events()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert codec.made.out < 2 * MIB
        total = 0
        while True:
            for event in first or await inbox.next_events():
                data = event.data if isinstance(event, Chunk) else b""
                if isinstance(event, Done):
                    data = event.response.body
                total += len(data)
                inbox.consumed(len(data))
                if isinstance(event, Done):
                    break
            else:
                first = []
                continue
            break
    assert total == 32 * MIB
    assert transfer.received == len(body)


async def test_a_decoder_that_refuses_ends_the_transfer(fetcher: Fetcher) -> None:
    body = zlib.compress(os.urandom(1000))
    async with serving(answer(200, body[:-1])) as server:
        inbox = fetcher.inbox()
        _, end = await finish(inbox, inbox.start(get(server.url), codec=Inflating()))
        assert isinstance(end, Failed)
        assert isinstance(end.error, FormatError)


class Inflating:
    """A codec that leaves everything to its decoder."""

    def __init__(self) -> None:
        self.made = Inflate()

    def whole(self, _data: bytes, /) -> None:
        return None

    def decoder(self) -> Inflate:
        return self.made


class Broken:
    """A decoder with a bug in it."""

    def feed(self, data: bytes, /) -> Iterator[bytes]:
        yield data
        raise ZeroDivisionError

    def finish(self) -> None:
        raise AssertionError("not reached")


class Breaking:
    """A codec with a bug in it."""

    def whole(self, _data: bytes, /) -> bytes:
        raise ZeroDivisionError

    def decoder(self) -> Broken:
        return Broken()


@pytest.mark.parametrize("size", [10, 3 * PIECE_BYTES])
async def test_a_fault_in_a_decoder_is_told_and_leaves_the_fetcher_alive(
    fetcher: Fetcher, size: int
) -> None:
    async with serving(answer(200, bytes(size))) as server:
        inbox = fetcher.inbox()
        _, end = await finish(inbox, inbox.start(get(server.url), codec=Breaking()))
        assert isinstance(end, Failed)
        assert isinstance(end.error, ZeroDivisionError)
        assert (await fetcher.fetch(get(server.url))).status == 200


async def test_a_transfer_that_broke_while_its_consumer_was_busy_still_ends(
    fetcher: Fetcher,
) -> None:
    async def cut(exchange: Exchange) -> None:
        exchange.hang_up()
        await exchange.reply(200, bytes(3 * MIB), length=4 * MIB)

    async with serving(cut) as server:
        inbox = fetcher.inbox(window_bytes=PIECE_BYTES)
        data, end = await finish(inbox, inbox.start(get(server.url)))
        assert isinstance(end, Failed)
        assert isinstance(end.error, TransportClosedError)
        assert len(data) <= 3 * MIB


# -- going on where a transfer broke off -----------------------------------------------


class CutShort:
    """A handler that cuts the first answer short and serves ranges after that."""

    def __init__(self, body: bytes, *, cut: int, changed: bool = False) -> None:
        self._body = body
        self._cut = cut
        self._changed = changed
        self._first = True

    async def __call__(self, exchange: Exchange) -> None:
        dated = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
        if self._first:
            self._first = False
            exchange.hang_up()
            await exchange.reply(
                200, self._body[: self._cut], dated, length=len(self._body)
            )
        elif "range" in exchange.asked.headers and not self._changed:
            start = int(exchange.asked.headers["range"][len("bytes=") : -1])
            total = len(self._body)
            await exchange.reply(
                206,
                self._body[start:],
                dated | {"Content-Range": f"bytes {start}-{total - 1}/{total}"},
            )
        else:
            await exchange.reply(200, self._body, dated)


async def test_a_transfer_goes_on_where_another_broke_off(fetcher: Fetcher) -> None:
    body = os.urandom(4 * MIB)
    async with serving(CutShort(body, cut=3 * MIB)) as server:
        inbox = fetcher.inbox()
        broken = inbox.start(get(server.url))
        data, end = await finish(inbox, broken)
        assert isinstance(end, Failed)
        assert broken.last_modified == 1445412480
        assert broken.length == 4 * MIB
        rest = inbox.start(get(server.url), resume=broken)
        more, end = await finish(inbox, rest)
        assert isinstance(end, Done)
        assert data + more == body
        assert broken.received + rest.received == len(body)
        assert server.asked[1].headers["range"] == f"bytes={broken.received}-"


async def test_a_server_that_sends_the_whole_instead_of_the_rest_is_noticed(
    fetcher: Fetcher,
) -> None:
    body = os.urandom(2 * MIB)
    async with serving(CutShort(body, cut=MIB, changed=True)) as server:
        inbox = fetcher.inbox()
        broken = inbox.start(get(server.url))
        await finish(inbox, broken)
        _, end = await finish(inbox, inbox.start(get(server.url), resume=broken))
        assert isinstance(end, Failed)
        assert isinstance(end.error, ResumeRefusedError)


# -- cancelling and closing ------------------------------------------------------------


async def stall(exchange: Exchange) -> None:
    await exchange.stall()


@pytest.mark.parametrize("window", [PIECE_BYTES, 16 * MIB])
async def test_nothing_comes_of_a_cancelled_transfer(
    fetcher: Fetcher, window: int
) -> None:
    async with serving(answer(200, bytes(MIB))) as server:
        inbox = fetcher.inbox(window_bytes=window)
        dropped = [inbox.start(get(server.url)) for _ in range(3)]
        taken = 0
        for event in await inbox.next_events():
            taken += len(event.data if isinstance(event, Chunk) else b"")
        await trio.testing.wait_all_tasks_blocked(0.02)
        for transfer in [*dropped, *dropped]:
            inbox.cancel(transfer)
        inbox.consumed(taken)
        for _ in range(20):
            kept = inbox.start(get(server.url))
            data, end = await finish(inbox, kept)
            assert isinstance(end, Done)
            assert len(data) == MIB


async def test_what_is_on_its_way_while_its_transfer_is_cancelled_is_dropped(
    fetcher: Fetcher,
) -> None:
    async with serving(answer(200, b"x")) as server:
        inbox = fetcher.inbox(window_bytes=4)
        for _ in range(50):
            transfer = inbox.start(get(server.url))
            # Let the thread work without giving this one the chance to look.
            time.sleep(0.002)  # noqa: ASYNC251
            inbox.cancel(transfer)
        _, end = await finish(inbox, inbox.start(get(server.url)))
        assert isinstance(end, Done)


async def test_an_option_that_cannot_be_set_is_told(fetcher: Fetcher) -> None:
    access = replace(ACCESS, user_agent="\N{SNOWMAN}")
    with pytest.raises(UnicodeEncodeError):
        await fetcher.fetch(replace(get("http://127.0.0.1:1/"), access=access))


async def test_what_was_cancelled_before_its_turn_is_never_asked_for(
    fetcher: Fetcher,
) -> None:
    async with serving(files({"/x": b"x"}, fallback=stall)) as server:
        inbox = fetcher.inbox()
        blocking = [inbox.start(get(f"{server.url}/{n}")) for n in range(8)]
        waiting = inbox.start(get(f"{server.url}/waiting"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        inbox.cancel(waiting)
        for transfer in blocking:
            inbox.cancel(transfer)
        assert (await fetcher.fetch(get(f"{server.url}/x"))).body == b"x"
    assert "/waiting" not in server.paths


async def test_a_fetch_can_be_cancelled_at_any_moment(fetcher: Fetcher) -> None:
    async with serving(files({"/x": b"x"}, fallback=stall)) as server:
        patient = replace(get(f"{server.url}/stall"), access=Access())
        for _ in range(20):
            with trio.move_on_after(0.005) as scope:
                await fetcher.fetch(patient)
            assert scope.cancelled_caught
        with trio.fail_after(20):  # were they still there, this would wait for 30
            assert (await fetcher.fetch(get(f"{server.url}/x"))).body == b"x"


async def test_waiting_for_events_loses_none_when_cancelled(fetcher: Fetcher) -> None:
    async with serving(answer(200, b"x")) as server:
        inbox = fetcher.inbox()
        for _ in range(50):
            inbox.start(get(server.url))
        seen = 0
        while seen < 50:
            with trio.move_on_after(0.001):
                seen += len(await inbox.next_events())


async def test_a_nudge_ends_the_wait(fetcher: Fetcher) -> None:
    inbox = fetcher.inbox()
    inbox.nudge()
    assert await inbox.next_events() == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.next_events)
        await trio.testing.wait_all_tasks_blocked()
        inbox.nudge()


async def test_leaving_drops_what_runs_and_joins_the_thread() -> None:
    before = set(threading.enumerate())
    async with serving(stall) as server:
        async with Fetcher() as fetcher:
            inbox = fetcher.inbox()
            transfers = [inbox.start(get(server.url)) for _ in range(20)]
            await trio.testing.wait_all_tasks_blocked(0.05)
        with pytest.raises(trio.ClosedResourceError):
            inbox.start(get(server.url))
        with pytest.raises(trio.ClosedResourceError):
            await inbox.next_events()
        with pytest.raises(trio.ClosedResourceError):
            fetcher.inbox()
        inbox.cancel(transfers[0])
        inbox.consumed(0)
    assert set(threading.enumerate()) == before


async def test_whoever_still_waits_is_told_of_the_end() -> None:
    async with trio.open_nursery() as nursery, Fetcher() as fetcher:
        inbox = fetcher.inbox()

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await inbox.next_events()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()


async def test_leaving_because_of_a_cancellation_joins_the_thread_too() -> None:
    before = set(threading.enumerate())
    async with serving(stall) as server:
        with trio.move_on_after(0.05):
            async with Fetcher() as fetcher:
                await fetcher.fetch(get(server.url))
    assert set(threading.enumerate()) == before


async def test_a_fault_of_the_thread_is_raised_where_events_are_awaited() -> None:
    def fault() -> None:
        raise ZeroDivisionError

    async with Fetcher() as fetcher:
        inbox = fetcher.inbox()
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(ZeroDivisionError):
                    await inbox.next_events()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            fetcher.engine.call(fault)
        with pytest.raises(ZeroDivisionError):
            inbox.start(get("http://127.0.0.1:1/"))


# -- many of everything ----------------------------------------------------------------


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Have all descriptor numbers below 1024 taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    require("descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    taken = [os.open("/dev/null", os.O_RDONLY)]
    while taken[-1] < 1100:
        taken.append(os.dup(taken[0]))
    yield
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_sockets_beyond_what_select_can_hold_are_served(
    many_descriptors: None,
) -> None:
    async with Fetcher() as fetcher, serving(answer(200, bytes(MIB))) as server:
        for _ in range(3):
            assert len((await fetcher.fetch(get(server.url))).body) == MIB
        assert fetcher.engine._multi._crowded


async def test_more_servers_than_are_remembered(
    fetcher: Fetcher, nginx: StartNginx, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    server = nginx(tmp_path)
    port = server.port
    for number in range(1, 130):
        # Names of the same address, but servers of their own to the fetcher.
        url = f"http://127.0.0.1:{port}/x".replace("127.0.0.1", f"0x7f.{number:#x}.1")
        request = replace(get(url), access=replace(ACCESS, proxy=server.url))
        assert (await fetcher.fetch(request)).status == 200


async def test_a_hundred_small_files_are_handed_over_in_few_batches() -> None:
    async with (
        Fetcher(Limits(connections=4, host_connections=4)) as fetcher,
        serving(answer(200, b"x")) as server,
    ):
        inbox = fetcher.inbox()
        for number in range(100):
            inbox.start(get(server.url), tag=number)
        tags: list[object] = []
        while len(tags) < 100:
            tags += [event.transfer.tag for event in await inbox.next_events()]
    assert set(tags) == set(range(100))
