"""Objects in bulk from servers and mirrors that fail, break off or refuse."""

import os
from collections.abc import AsyncIterator
from random import Random

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from p2p.errors import (
    ConnectError,
    CredentialsError,
    OriginError,
    OriginNotFoundError,
    TransportClosedError,
    TransportTimeoutError,
)
from p2p.web.client.bulk import (
    ObjectEvent,
    ObjectFailed,
    ObjectPiece,
    ObjectReceived,
    ObjectRestarted,
)
from p2p.web.client.credentials import Credentials, OAuth2Client
from p2p.web.client.engine import Limits
from p2p.web.client.fetch import Fetcher
from p2p.web.client.origin import Origin
from tests.web.client.objects import (
    File,
    collect,
    contents,
    fetch,
    make_file,
    open_origin,
)
from tests.web.client.servers import Exchange, Handler, answer, files, replies, serving

MIB = 1 << 20
PHRASE = "secret"
SMALL = make_file(b"hello\n")
BIG = make_file(Random(1).randbytes(5 * MIB), level=1)


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


# -- servers in trouble ----------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 403, 410])
async def test_an_object_that_is_not_there_fails_at_once(
    fetcher: Fetcher, status: int
) -> None:
    async with serving(answer(status)) as server:
        with pytest.raises(OriginNotFoundError):
            await fetch(open_origin(fetcher, server.url), SMALL.name)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
async def test_a_server_that_is_busy_once_is_asked_again(
    fetcher: Fetcher, autojump_clock: MockClock, status: int
) -> None:
    async with serving(replies(answer(status), answer(200, SMALL.filez))) as server:
        origin = open_origin(fetcher, server.url)
        assert await fetch(origin, SMALL.name) == SMALL.canonical


async def test_a_server_that_stays_broken_is_asked_five_times(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    async with serving(answer(500, b"out of order")) as server:
        with pytest.raises(OriginError, match=r"out of order \(tried 5 times\)"):
            await fetch(open_origin(fetcher, server.url), SMALL.name)
    assert len(server.asked) == 5


async def test_retry_after_holds_back_everything(mock_clock: MockClock) -> None:
    start = trio.current_time()
    early = 0

    async def later(exchange: Exchange) -> None:
        nonlocal early
        if trio.current_time() - start < 30:
            early += 1
            await exchange.reply(429, b"", {"Retry-After": "30"})
        else:
            await files(contents(made))(exchange)

    made = [make_file(b"%d" % number) for number in range(100)]
    one = Limits(connections=1, host_connections=1)
    events: list[ObjectEvent] = []
    pauses: list[float] = []

    async def take() -> None:
        events.extend(await collect(origin, pauses))

    async with serving(later) as server, Fetcher(one) as fetcher:
        origin = open_origin(fetcher, server.url)
        for file in made:
            origin.want(file.name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked(0.2)
            # Only what was asked before the first answer was looked at.
            assert 1 <= early <= 50
            mock_clock.jump(31)
    assert {type(event) for event in events} == {ObjectReceived}
    assert set(pauses) == {30}
    assert len(server.asked) == early + 100


async def cut(exchange: Exchange) -> None:
    exchange.hang_up()
    await exchange.reply(200, SMALL.filez[:-5], length=len(SMALL.filez))


async def stall_in_body(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    await exchange.stall()


@pytest.mark.parametrize(
    "handler, error",
    [(cut, TransportClosedError), (stall_in_body, TransportTimeoutError)],
)
async def test_a_connection_that_always_breaks_in_the_middle_is_given_up(
    fetcher: Fetcher,
    autojump_clock: MockClock,
    handler: Handler,
    error: type[Exception],
) -> None:
    async with serving(handler) as server:
        with pytest.raises(error, match="tried 2 times"):
            await fetch(open_origin(fetcher, server.url, tries=2), SMALL.name)
    assert len(server.asked) == 2


async def test_a_server_that_is_gone_fails_everything_after_five_tries(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    async with serving(answer()) as server:
        pass
    origin = open_origin(fetcher, server.url)
    made = [make_file(b"%d" % number) for number in range(200)]
    for file in made:
        origin.want(file.name)
    start = trio.current_time()
    events = await collect(origin)
    assert {event.name for event in events} == {file.name for file in made}
    for event in events:
        assert isinstance(event, ObjectFailed)
        assert isinstance(event.error, ConnectError)
        assert server.url in str(event.error)
        assert "tried 5 times" in str(event.error)
    # Four pauses, each no longer than 1, 2, 4 and 8 seconds.
    assert trio.current_time() - start < 15
    assert origin.counters.requests <= 5 * 64


async def test_a_server_that_comes_back_in_time_is_used(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    """It fails more often than one is patient with, but not in a row.

    One after the other, because what is asked beside a failure is dropped, and which
    of them failed before anything came would be a matter of luck.
    """
    silent = allowed = 0

    async def sick(exchange: Exchange) -> None:
        nonlocal silent
        if silent < allowed:
            silent += 1
            exchange.hang_up()
        else:
            await files(contents(made))(exchange)

    made = [make_file(b"%d" % number) for number in range(5)]
    async with serving(sick) as server:
        origin = open_origin(fetcher, server.url)
        for file in made:
            allowed += 3
            assert await fetch(origin, file.name) == file.canonical
    assert silent == 15


# -- long files that break off ---------------------------------------------------------


class Breaking:
    """Serves one file by ranges, and breaks off after so many bytes each time."""

    def __init__(self, file: File, *, each: int, dated: bool = True) -> None:
        self.file = file
        self.each = each
        self.headers = (
            {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"} if dated else {}
        )
        self.ranges: list[str | None] = []

    async def __call__(self, exchange: Exchange) -> None:
        body = self.file.filez
        asked = exchange.asked.headers.get("range")
        self.ranges.append(asked)
        start = int(asked[len("bytes=") : -1]) if asked else 0
        rest = body[start:]
        if asked:
            assert exchange.asked.headers["if-range"] == "Wed, 21 Oct 2015 07:28:00 GMT"
            self.headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        exchange.hang_up()
        await exchange.reply(
            206 if asked else 200,
            rest[: self.each],
            self.headers,
            length=len(rest),
        )


async def test_a_long_file_goes_on_where_it_broke_off(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    handler = Breaking(BIG, each=2 * MIB)
    async with serving(handler) as server:
        origin = open_origin(fetcher, server.url)
        origin.want(BIG.name)
        events = await collect(origin)
    assert handler.ranges[0] is None
    assert None not in handler.ranges[1:]
    assert not [event for event in events if isinstance(event, ObjectRestarted)]
    pieces = [event for event in events if isinstance(event, ObjectPiece)]
    assert b"".join(piece.data for piece in pieces) == BIG.canonical
    assert origin.counters.bytes["file"] == len(BIG.filez)


async def test_a_long_file_of_a_flaky_server_gets_through_in_many_parts(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    file = make_file(os.urandom(12 * MIB), level=1)
    async with serving(Breaking(file, each=3 * MIB // 2)) as server:
        origin = open_origin(fetcher, server.url)
        assert await fetch_any(origin, file) == file.canonical
    assert len(server.asked) == 9


async def fetch_any(origin: Origin, file: File) -> bytes:
    origin.want(file.name)
    data = b""
    for event in await collect(origin):
        assert isinstance(event, ObjectPiece | ObjectRestarted)
        data = data + event.data if isinstance(event, ObjectPiece) else b""
    return data


async def test_a_long_file_without_a_date_is_begun_again(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    whole = answer(200, BIG.filez)
    handler = replies(Breaking(BIG, each=2 * MIB, dated=False), whole)
    async with serving(handler) as server:
        origin = open_origin(fetcher, server.url)
        origin.want(BIG.name)
        events = await collect(origin)
    assert [e for e in events if isinstance(e, ObjectRestarted)] == [
        ObjectRestarted(BIG.name)
    ]
    assert isinstance(events[-1], ObjectPiece)
    assert events[-1].last
    assert "range" not in server.asked[1].headers


async def test_a_long_file_that_changed_meanwhile_is_begun_again(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    handler = replies(Breaking(BIG, each=2 * MIB), answer(200, BIG.filez))
    async with serving(handler) as server:
        origin = open_origin(fetcher, server.url)
        assert await fetch(origin, BIG.name) == BIG.canonical
    assert "range" in server.asked[1].headers
    assert "range" not in server.asked[2].headers


# -- mirrors ---------------------------------------------------------------------------


async def stall(exchange: Exchange) -> None:
    await exchange.stall()


@pytest.mark.parametrize(
    "bad",
    [answer(404), answer(500), answer(200, b"garbage"), cut, stall, answer(403)],
)
async def test_what_one_mirror_cannot_give_comes_from_the_next(
    fetcher: Fetcher, bad: Handler
) -> None:
    config = {"/config": b""}
    good = files(contents([SMALL, BIG]) | config)
    async with (
        serving(files(config, fallback=bad)) as first,
        serving(good) as second,
    ):
        lines = f"{first.url}\n{second.url}/\n".encode()
        async with serving(answer(200, lines)) as listing:
            origin = open_origin(
                fetcher, second.url, content_url=f"mirrorlist={listing.url}/list"
            )
            assert await fetch(origin, SMALL.name) == SMALL.canonical
            assert await fetch(origin, BIG.name) == BIG.canonical


async def test_a_mirror_that_cannot_be_reached_is_asked_last_from_then_on(
    fetcher: Fetcher,
) -> None:
    config = {"/config": b""}
    made = [make_file(b"%d" % number) for number in range(20)]

    async def vanish(exchange: Exchange) -> None:
        exchange.hang_up()

    async with (
        serving(files(config, fallback=vanish)) as first,
        serving(files(contents(made) | config)) as second,
        serving(answer(200, f"{first.url}\n{second.url}".encode())) as listing,
    ):
        origin = open_origin(
            fetcher, second.url, content_url=f"mirrorlist={listing.url}/list"
        )
        for file in made:
            assert await fetch(origin, file.name) == file.canonical
    assert len(set(first.paths)) == 2


# -- credentials -----------------------------------------------------------------------


async def test_a_token_that_expires_in_the_middle_is_renewed_and_nothing_lost(
    fetcher: Fetcher,
) -> None:
    made = [make_file(b"%d" % number) for number in range(100)]
    served = tokens = 0

    async def guarded(exchange: Exchange) -> None:
        nonlocal tokens, served
        good = "Bearer t1" if served < 40 else "Bearer t2"
        if exchange.asked.path == "/token":
            tokens += 1
            await exchange.reply(200, b'{"access_token":"t%d"}' % tokens)
        elif exchange.asked.headers.get("authorization") != good:
            await exchange.reply(401)
        else:
            served += 1
            await files(contents(made))(exchange)

    async with serving(guarded) as server:
        client = OAuth2Client(
            token_url=f"{server.url}/token", client_id="me", client_secret=PHRASE
        )
        origin = open_origin(
            fetcher, server.url, credentials=Credentials(oauth2=client)
        )
        for file in made:
            origin.want(file.name)
        events = await collect(origin)
    assert {type(event) for event in events} == {ObjectReceived}
    assert (tokens, served) == (2, 100)


async def test_credentials_that_are_never_accepted_end_it(fetcher: Fetcher) -> None:
    async def guarded(exchange: Exchange) -> None:
        if exchange.asked.path == "/token":
            await exchange.reply(200, b'{"access_token":"t"}')
        else:
            await exchange.reply(401)

    async with serving(guarded) as server:
        client = OAuth2Client(
            token_url=f"{server.url}/token", client_id="me", client_secret=PHRASE
        )
        origin = open_origin(
            fetcher, server.url, credentials=Credentials(oauth2=client)
        )
        with pytest.raises(CredentialsError, match="401"):
            await fetch(origin, SMALL.name)
    assert server.paths.count(SMALL.path) == 2
