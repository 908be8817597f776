"""Objects in bulk: from good servers, bad ones, and ones that come and go."""

import os
import zlib
from collections.abc import AsyncIterator
from random import Random

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from p2p.errors import (
    FormatError,
    IntegrityError,
    LimitError,
)
from p2p.ostree.messages import Form
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.web.client.bulk import (
    ObjectReceived,
    OriginEvent,
)
from p2p.web.client.fetch import Fetcher
from p2p.web.client.intake import PIECE_BYTES
from tests.servers import StartNginx
from tests.web.client.objects import (
    HEADER,
    File,
    collect,
    contents,
    fetch,
    make_file,
    make_metadata,
    open_origin,
)
from tests.web.client.servers import Exchange, answer, files, replies, serving

MIB = 1 << 20
SMALL = make_file(b"hello\n")
BIG = make_file(Random(1).randbytes(5 * MIB), level=1)


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


# -- what comes ------------------------------------------------------------------------


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("file", [SMALL, BIG], ids=["small", "big"])
async def test_a_file_comes_in_the_form_that_was_asked_for(
    fetcher: Fetcher, file: File, form: Form
) -> None:
    async with serving(files(contents([file]))) as server:
        origin = open_origin(fetcher, server.url)
        data = await fetch(origin, file.name, form)
    assert data == (file.canonical if form is Form.CANONICAL else file.filez)
    assert origin.counters.requests == 1
    assert origin.counters.retries == 0
    assert origin.counters.bytes == {"file": len(file.filez)}


async def test_metadata_comes_as_it_is(fetcher: Fetcher) -> None:
    tree = os.urandom(3 * PIECE_BYTES)
    name = make_metadata(tree)
    async with serving(files({f"/objects/{name.path()}": tree})) as server:
        origin = open_origin(fetcher, server.url)
        assert await fetch(origin, name) == tree
    assert origin.counters.bytes == {"dirtree": len(tree)}


async def test_thousands_of_objects_come_from_nginx(
    fetcher: Fetcher, nginx: StartNginx, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("repo")
    made = {}
    for number in range(2000):
        file = make_file(b"%d" % number * (number % 50))
        made[file.name] = file.canonical
        path = root / file.path[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.filez)
    server = nginx(root)
    origin = open_origin(fetcher, server.url)
    for name in made:
        origin.want(name)
    found = {}
    for event in await collect(origin):
        assert isinstance(event, ObjectReceived)
        found[event.name] = event.data
    assert found == made
    assert len(server.requests()) == len(made)


async def test_what_is_wanted_while_another_waits_is_fetched(fetcher: Fetcher) -> None:
    async with serving(files(contents([SMALL]))) as server:
        origin = open_origin(fetcher, server.url)
        found: list[OriginEvent] = []

        async def wait() -> None:
            found.extend(await origin.next_events())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            origin.want(SMALL.name)
    assert found == [ObjectReceived(SMALL.name, SMALL.canonical)]


async def test_what_has_no_checksum_or_is_wanted_already_is_refused(
    fetcher: Fetcher,
) -> None:
    origin = open_origin(fetcher, "http://127.0.0.1:1")
    origin.want(SMALL.name)
    with pytest.raises(ValueError, match="already"):
        origin.want(SMALL.name)
    with pytest.raises(ValueError, match="verified"):
        origin.want(ObjectName(Checksum("0" * 64), ObjectType.COMMITMETA))


async def test_objects_that_are_not_consumed_stop_the_flow(fetcher: Fetcher) -> None:
    made = [make_file(os.urandom(PIECE_BYTES - 100)) for _ in range(30)]
    async with serving(files(contents(made))) as server:
        origin = open_origin(fetcher, server.url, window_bytes=MIB)
        for file in made:
            origin.want(file.name)
        events: list[OriginEvent] = []
        while len(events) < 4:
            events += await origin.next_events()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(server.asked) <= 4 + 8
        origin.consumed(PIECE_BYTES * len(events))
        events += await collect(origin)
    came = {event.name for event in events if isinstance(event, ObjectReceived)}
    assert came == {file.name for file in made}


# -- what is forgotten -----------------------------------------------------------------


async def test_nothing_comes_of_a_forgotten_object(fetcher: Fetcher) -> None:
    async def stall(exchange: Exchange) -> None:
        await exchange.stall()

    async with serving(files(contents([SMALL, BIG]), fallback=stall)) as server:
        origin = open_origin(fetcher, server.url, window_bytes=MIB)
        stalled = make_file(b"stalled")
        for file in (stalled, BIG):
            origin.want(file.name)
        await origin.next_events()
        origin.forget(stalled.name)
        origin.forget(BIG.name)
        origin.consumed(2 * MIB)
        never = make_file(b"never asked for")
        origin.want(never.name)
        origin.forget(never.name)
        assert await fetch(origin, SMALL.name) == SMALL.canonical
    assert never.path not in server.paths


async def test_events_of_an_object_that_is_forgotten_in_time_are_dropped(
    fetcher: Fetcher,
) -> None:
    other = make_file(b"other")
    async with serving(files(contents([SMALL, other]))) as server:
        origin = open_origin(fetcher, server.url)
        origin.want(SMALL.name)
        origin.want(other.name)
        with trio.move_on_after(0) as scope:
            await origin.next_events()
        assert scope.cancelled_caught
        assert origin.forget(SMALL.name)
        events = await collect(origin)
        assert not origin.forget(other.name)  # too late
    assert events == [ObjectReceived(other.name, other.canonical)]


# -- what is wrong with a file ---------------------------------------------------------


def forged(size: int, content: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return HEADER.serialize_filez(size) + deflater.compress(content) + deflater.flush()


@pytest.mark.parametrize(
    "file, error",
    [
        (SMALL.filez[:-1], FormatError),
        (SMALL.filez + b"trailing", FormatError),
        (b"<html>Log in to this network</html>", FormatError),
        (b"", FormatError),
        (forged(6, b"hellO\n"), IntegrityError),
        (forged(7, b"hello\n"), IntegrityError),
        (forged(5, b"hello\n"), IntegrityError),
        (forged(6, bytes(64 * MIB)), IntegrityError),
    ],
)
async def test_a_corrupt_file_is_tried_again_and_then_refused(
    fetcher: Fetcher, autojump_clock: MockClock, file: bytes, error: type[Exception]
) -> None:
    async with serving(files({SMALL.path: file})) as server:
        origin = open_origin(fetcher, server.url)
        with pytest.raises(error, match="tried 5 times") as caught:
            await fetch(origin, SMALL.name)
        assert server.url in str(caught.value)
    assert len(server.asked) == 5
    assert origin.counters.retries == 4


async def test_a_file_beyond_the_limit_is_refused_at_once(fetcher: Fetcher) -> None:
    async with serving(files({SMALL.path: forged(1 << 40, b"x")})) as server:
        with pytest.raises(LimitError):
            await fetch(open_origin(fetcher, server.url), SMALL.name)
    assert len(server.asked) == 1


async def test_a_file_that_goes_on_for_ever_is_refused(fetcher: Fetcher) -> None:
    async def endless(exchange: Exchange) -> None:
        exchange.hang_up()
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        # Empty stored blocks: deflate that never ends and never yields a byte.
        block = HEADER.serialize_filez(100)
        while True:
            await exchange.send(b"%x\r\n%b\r\n" % (len(block), block))
            block = b"\0\0\0\xff\xff" * 10_000

    async with serving(endless) as server:
        origin = open_origin(fetcher, server.url, max_object_bytes=1000)
        with pytest.raises(LimitError, match="longer than"):
            await fetch(origin, SMALL.name)


async def test_a_file_that_is_good_the_second_time_is_good(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    handler = replies(answer(200, b"garbage"), answer(200, SMALL.filez))
    async with serving(handler) as server:
        origin = open_origin(fetcher, server.url)
        assert await fetch(origin, SMALL.name) == SMALL.canonical
    assert origin.counters.retries == 1
