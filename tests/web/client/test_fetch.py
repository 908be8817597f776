"""The fetcher against servers that behave, misbehave, stall and lie."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio
import trio.testing

from p2p.errors import (
    ConfigError,
    ConnectError,
    CredentialsError,
    LimitError,
    OriginError,
    OriginNotFoundError,
    TransportClosedError,
    TransportTimeoutError,
)
from p2p.web.client.engine import Limits
from p2p.web.client.fetch import Fetcher
from p2p.web.client.intake import PIECE_BYTES
from p2p.web.client.request import Access, Request
from tests.web.client.servers import (
    Exchange,
    Handler,
    answer,
    replies,
    serving,
)

# A server that stalls is given up after a second instead of thirty.
IMPATIENT = Access(connect_seconds=0.5, low_speed_seconds=1)
MIB = 1 << 20


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


def get(url: str, *, max_bytes: int = MIB, access: Access = IMPATIENT) -> Request:
    return Request(url=url, max_bytes=max_bytes, access=access)


# -- answers ------------------------------------------------------------------------


async def test_an_answer_comes_with_status_headers_and_body(fetcher: Fetcher) -> None:
    async with serving(answer(200, b"hello", ETag='"x"')) as server:
        response = await fetcher.fetch(get(f"{server.url}/a/b?c=d"))
    assert (response.status, response.body, response.received) == (200, b"hello", 5)
    assert response.headers["etag"] == '"x"'
    assert response.url == f"{server.url}/a/b?c=d"
    assert server.asked[0].target == "/a/b?c=d"
    assert server.asked[0].headers["user-agent"].startswith("ostree-p2p/")
    assert "accept-encoding" not in server.asked[0].headers


async def test_an_answer_without_a_body_is_one(fetcher: Fetcher) -> None:
    async with serving(answer(204)) as server:
        response = await fetcher.fetch(get(server.url))
    assert (response.status, response.body) == (204, b"")


async def test_a_header_that_comes_twice_keeps_both_values(fetcher: Fetcher) -> None:
    async def twice(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n"
        )

    async with serving(twice) as server:
        response = await fetcher.fetch(get(server.url))
    assert response.headers["x-a"] == "1, 2"


async def test_an_interim_answer_is_not_mistaken_for_the_answer(
    fetcher: Fetcher,
) -> None:
    async def hint(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n")
        await exchange.reply(200, b"late")

    async with serving(hint) as server:
        response = await fetcher.fetch(get(server.url))
    assert (response.status, response.body) == (200, b"late")
    assert "x-early" not in response.headers


async def test_a_long_body_arrives_whole(fetcher: Fetcher) -> None:
    body = os.urandom(3 * PIECE_BYTES + 17)
    async with serving(answer(200, body)) as server:
        response = await fetcher.fetch(get(server.url, max_bytes=MIB))
    assert response.body == body


async def test_a_chunked_body_arrives_whole(fetcher: Fetcher) -> None:
    async def chunked(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await exchange.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    async with serving(chunked) as server:
        response = await fetcher.fetch(get(server.url))
    assert response.body == b"abcde"


async def test_an_encoded_body_is_not_decoded(fetcher: Fetcher) -> None:
    async with serving(answer(200, b"\x1f\x8b..", Content_Encoding="gzip")) as server:
        response = await fetcher.fetch(get(server.url))
    assert response.body == b"\x1f\x8b.."


async def test_connections_are_used_again(fetcher: Fetcher) -> None:
    async with serving(answer(200, b"x")) as server:
        for _ in range(5):
            await fetcher.fetch(get(server.url))
    assert server.connections == 1


async def test_a_connection_that_was_closed_while_idle_costs_nothing(
    fetcher: Fetcher,
) -> None:
    async def once(exchange: Exchange) -> None:
        exchange.hang_up()
        await exchange.reply(200, b"x")

    async with serving(once) as server:
        for _ in range(3):
            assert (await fetcher.fetch(get(server.url))).body == b"x"
    assert server.connections == 3


async def test_no_more_connections_are_opened_than_allowed() -> None:
    here = 0
    most = 0

    async def count(exchange: Exchange) -> None:
        nonlocal here, most
        here += 1
        most = max(most, here)
        await trio.testing.wait_all_tasks_blocked(0.01)
        here -= 1
        await exchange.reply(200, b"x")

    limits = Limits(connections=3, host_connections=2)
    async with Fetcher(limits) as fetcher, serving(count) as server:
        inbox = fetcher.inbox()
        for _ in range(20):
            inbox.start(get(server.url))
        done = 0
        while done < 20:
            done += len(await inbox.next_events())
    assert most == 2
    assert server.connections == 2


# -- errors that servers answer -------------------------------------------------------


@pytest.mark.parametrize(
    "status, kind",
    [
        (401, CredentialsError),
        (407, CredentialsError),
        (403, OriginNotFoundError),
        (404, OriginNotFoundError),
        (410, OriginNotFoundError),
        (400, OriginError),
        (500, OriginError),
        (599, OriginError),
    ],
)
async def test_a_status_of_failure_is_an_error_that_names_url_and_reason(
    fetcher: Fetcher, status: int, kind: type[OriginError]
) -> None:
    async with serving(answer(status, b"because\n of \x1b[1m this")) as server:
        response = await fetcher.fetch(get(f"{server.url}/x?token=secret"))
    with pytest.raises(OriginError) as caught:
        response.check()
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert f"{server.url}/x?…" in str(caught.value)
    assert "because of" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


async def test_403_is_about_credentials_where_some_were_sent(fetcher: Fetcher) -> None:
    async with serving(answer(403)) as server:
        request = replace(get(server.url), private=(("Authorization", "Bearer x"),))
        response = await fetcher.fetch(request)
    with pytest.raises(CredentialsError):
        response.check()


@pytest.mark.parametrize("max_bytes, kept", [(100, 0), (8 * MIB, 4096)])
async def test_the_long_page_of_an_error_is_cut_short(
    fetcher: Fetcher, max_bytes: int, kept: int
) -> None:
    async with serving(answer(500, b"x" * (4 * MIB))) as server:
        response = await fetcher.fetch(get(server.url, max_bytes=max_bytes))
    assert (response.status, len(response.body)) == (500, kept)


async def test_retry_after_is_told_in_seconds(fetcher: Fetcher) -> None:
    handler = replies(
        answer(503, Retry_After="7"),
        answer(
            429,
            Date="Wed, 21 Oct 2015 07:28:00 GMT",
            Retry_After="Wed, 21 Oct 2015 07:28:30 GMT",
        ),
        answer(503, Retry_After="soon"),
        answer(503, Retry_After="9"),
        answer(503),
    )
    async with serving(handler) as server:
        plain = replace(get(server.url), want_headers=False)
        found = [
            (await fetcher.fetch(request)).retry_after
            for request in [get(server.url)] * 3 + [plain] * 2
        ]
    assert found == [7, 30, None, 9, None]


# -- connections that fail -------------------------------------------------------------


async def test_nobody_listening_is_a_connect_error_that_names_the_url(
    fetcher: Fetcher,
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(ConnectError, match=f"http://127.0.0.1:{port}/x: .*onnect"):
        await fetcher.fetch(get(f"http://user:secret@127.0.0.1:{port}/x"))


async def test_a_name_that_does_not_exist_is_a_connect_error(fetcher: Fetcher) -> None:
    # Too long for a label, so that no name server needs to be asked.
    with pytest.raises(ConnectError, match="resolve"):
        await fetcher.fetch(get(f"http://{'x' * 64}.invalid/"))


async def test_a_server_that_never_accepts_is_given_up(fetcher: Fetcher) -> None:
    full = trio.socket.socket()
    with full:
        await full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # One connection fills the queue; the kernel drops the next one's SYN.
        fillers = [trio.socket.socket() for _ in range(2)]
        async with trio.open_nursery() as nursery:
            for filler in fillers:
                nursery.start_soon(filler.connect, ("127.0.0.1", port))
            await trio.testing.wait_all_tasks_blocked(0.05)
            with pytest.raises(TransportTimeoutError):
                await fetcher.fetch(get(f"http://127.0.0.1:{port}/"))
            nursery.cancel_scope.cancel()
        for filler in fillers:
            filler.close()


async def stall_at_once(exchange: Exchange) -> None:
    await exchange.stall()


async def stall_after_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    await exchange.stall()


async def dribble(exchange: Exchange) -> None:
    exchange.hang_up()
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await exchange.send(b"x")
        await trio.sleep(0.05)


async def dribble_headers(exchange: Exchange) -> None:
    exchange.hang_up()
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.send(b"X-A: b\r\n")
        await trio.sleep(0.05)


@pytest.mark.parametrize(
    "handler", [stall_at_once, stall_after_headers, dribble, dribble_headers]
)
async def test_a_server_that_is_silent_or_too_slow_is_given_up(
    fetcher: Fetcher, handler: Handler
) -> None:
    async with serving(handler) as server:
        with pytest.raises(TransportTimeoutError, match=server.url):
            await fetcher.fetch(get(server.url))


async def cut_body(exchange: Exchange) -> None:
    exchange.hang_up()
    await exchange.reply(200, b"only this", length=1000)


async def cut_chunk(exchange: Exchange) -> None:
    exchange.hang_up()
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await exchange.send(b"ff\r\nonly this")


async def say_nothing(exchange: Exchange) -> None:
    exchange.hang_up()


async def reset(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    exchange.reset()


@pytest.mark.parametrize("handler", [cut_body, cut_chunk, say_nothing, reset])
async def test_an_answer_that_breaks_off_is_an_error(
    fetcher: Fetcher, handler: Handler
) -> None:
    async with serving(handler) as server:
        with pytest.raises(TransportClosedError, match=server.url):
            await fetcher.fetch(get(server.url))


async def garbage(exchange: Exchange) -> None:
    exchange.hang_up()
    await exchange.send(b"220 mail.example ESMTP\r\n\r\n")


async def half_status(exchange: Exchange) -> None:
    exchange.hang_up()
    await exchange.send(b"HTTP/1.1 abc\r\n\r\n")


@pytest.mark.parametrize("handler", [garbage, half_status])
async def test_what_is_not_http_is_an_origin_error(
    fetcher: Fetcher, handler: Handler
) -> None:
    async with serving(handler) as server:
        with pytest.raises(OriginError, match=server.url) as caught:
            await fetcher.fetch(get(server.url))
    assert "HTTP server" in caught.value.hint


# -- limits ----------------------------------------------------------------------------


async def long_chunks(exchange: Exchange) -> None:
    exchange.hang_up()
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await exchange.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")


@pytest.mark.parametrize("handler", [answer(200, b"x" * 1001), long_chunks])
@pytest.mark.parametrize("want_headers", [True, False])
async def test_a_body_that_is_too_long_is_refused(
    fetcher: Fetcher, handler: Handler, want_headers: bool
) -> None:
    async with serving(handler) as server:
        request = replace(get(server.url, max_bytes=1000), want_headers=want_headers)
        with pytest.raises(LimitError, match="longer than 1000 bytes"):
            await fetcher.fetch(request)


async def test_a_body_as_long_as_allowed_is_taken(fetcher: Fetcher) -> None:
    async with serving(answer(200, b"x" * 1000)) as server:
        assert len((await fetcher.fetch(get(server.url, max_bytes=1000))).body) == 1000


async def endless_headers(exchange: Exchange) -> None:
    exchange.hang_up()
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.send(b"X-Padding: " + b"x" * 1000 + b"\r\n")


@pytest.mark.parametrize("want_headers", [True, False])
async def test_headers_without_end_are_refused(
    fetcher: Fetcher, want_headers: bool
) -> None:
    async with serving(endless_headers) as server:
        request = replace(get(server.url), want_headers=want_headers)
        with pytest.raises(LimitError, match=r"(?i)header"):
            await fetcher.fetch(request)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "127.0.0.1/x",
        "http://",
        "http://h:99999/",
        "http://127.0.0.1/a b\r\nX-Evil: 1",
        "http://127.0.0.1/ü",
    ],
)
async def test_what_is_no_usable_url_is_refused_at_once(
    fetcher: Fetcher, url: str
) -> None:
    with pytest.raises(ConfigError):
        await fetcher.fetch(get(url))


@pytest.mark.parametrize(
    "header", [("X-A", "b\r\nX-Evil: 1"), ("X A", "b"), ("X:A", "b"), ("", "b")]
)
async def test_a_header_cannot_smuggle_in_another(
    fetcher: Fetcher, header: tuple[str, str]
) -> None:
    request = get("http://127.0.0.1:1/")
    with pytest.raises(ConfigError, match="header"):
        await fetcher.fetch(replace(request, headers=(header,)))
    with pytest.raises(ConfigError, match="header"):
        await fetcher.fetch(replace(request, private=(header,)))
