"""The HTTP server over real sockets on the loopback interface."""

import logging
import socket
import struct
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
import trio.testing

from p2p.web.server.access_log import AccessRecord
from p2p.web.server.exchange import (
    ClientGoneError,
    FileBody,
    RefusedError,
    Request,
    Response,
    text,
)
from p2p.web.server.files import file_response
from p2p.web.server.limits import Limits
from p2p.web.server.router import Router
from tests.web.server.talk import GET, echo, post, serving

TWO_LENGTHS = (
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)


async def test_requests_follow_each_other_on_one_connection() -> None:
    async with serving(echo) as server, server.talk() as talk:
        for number in range(5):
            answer = await talk.ask("GET", f"/a{number}?q=1")
            assert answer.body.decode() == f"GET|/a{number}|q=1|"
        answer = await talk.ask("POST", "/b", body=b"x" * 100_000)
        assert answer.body.decode() == "POST|/b||" + "x" * 100_000
        answer = await talk.ask("GET", "/after")
        assert answer.status == 200


async def test_lines_known_from_before_do_not_hide_what_is_wrong_with_a_request() -> (
    None
):
    good = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    for bad in (
        b"GET /2\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /2 HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    ):
        async with serving(echo) as server:
            told = await server.raw(good + good + bad + good)
            assert told.count(b"200 OK") == 2
            assert told.count(b"400 Bad Request") == 1
            assert told.count(b"HTTP/1.1 ") == 3


async def test_uploads_like_the_one_before_are_framed_alike() -> None:
    async with serving(echo) as server, server.talk() as talk:
        for size in (3, 0, 100_000, 7, 500_000):
            answer = await talk.ask("POST", f"/{size}", body=b"x" * size)
            assert answer.body == f"POST|/{size}||".encode() + b"x" * size
        assert (await talk.ask("GET", "/")).body == b"GET|/||"
    async with serving(echo) as server:
        told = await server.raw((post(3) + b"abc") * 5 + post(9) + b"cut")
        assert told.count(b"POST|/||abc") == 5
        assert told.count(b"400 Bad Request") == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    lines = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(50))
    async with serving(echo) as server:
        told = await server.raw(lines)
    assert told.count(b"200 OK") == 50
    assert [told.index(b"GET|/%d|" % n) for n in range(50)] == sorted(
        told.index(b"GET|/%d|" % n) for n in range(50)
    )


async def test_a_head_may_come_byte_by_byte() -> None:
    async with serving(echo) as server, await server.connect() as stream:
        for byte in b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n":
            await stream.send_all(bytes([byte]))
        assert b"GET|/slow||" in await stream.receive_some(1000)


@pytest.mark.parametrize(
    "raw,status",
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n bad: folded\r\n\tmore\r\n: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (TWO_LENGTHS, 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET http://[x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 40_000, 431),
        (post(99999999999), 413),
    ],
)
async def test_malformed_requests_get_a_reason_and_the_connection_ends(
    raw: bytes, status: int
) -> None:
    async with serving(echo) as server, server.talk() as talk:
        await talk.stream.send_all(raw)
        answer = await talk.read_answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert set(answer.json) == {"code", "description", "cause", "errorId"}
        assert await talk.is_closed()


async def test_the_absolute_form_of_a_target_is_taken_as_from_a_proxys_client() -> None:
    async with serving(echo) as server:
        answer = await server.ask("GET", "http://elsewhere/a%20b?c")
        assert answer.body.decode() == "GET|/a b|c|"
        assert (await server.ask("GET", "http://elsewhere")).body == b"GET|/||"


async def test_http_1_0_is_answered_and_closed() -> None:
    async def stream(_request: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"one"
            yield b"two"

        return Response(200, (), pieces())

    async with serving(stream) as server:
        told = await server.raw(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = told.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"Connection: close" in head
        assert body == b"onetwo"


async def test_a_stream_goes_out_in_chunks_and_head_gets_none_of_it() -> None:
    closed = []

    async def stream(_request: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            try:
                yield b"one"
                yield b""
                yield b"two" * 100_000
            finally:
                closed.append(True)

        return Response(200, (), pieces())

    async with serving(stream) as server, server.talk() as talk:
        answer = await talk.ask("GET", "/")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.body == b"one" + b"two" * 100_000
        assert (await talk.ask("HEAD", "/")).body == b""
        assert (await talk.ask("GET", "/")).status == 200
    assert len(closed) == 2  # a generator that never began has nothing to close


async def test_a_body_in_chunks_is_read_and_a_broken_one_refused() -> None:
    head = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(echo) as server:
        told = await server.raw(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert told.endswith(b"POST|/c||abcde")
        assert b"400 Bad Request" in await server.raw(head + b"3\r\nabcdefg\r\n")
        assert b"400 Bad Request" in await server.raw(head + b"3\r\na")


async def test_bodies_are_bounded_by_the_server_and_by_the_handler() -> None:
    chunked = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    limits = Limits(body_bytes=10)
    async with serving(echo, limits=limits) as server:
        assert (await server.ask("POST", "/", body=b"x" * 10)).status == 200
        assert (await server.ask("POST", "/", body=b"x" * 11)).status == 413
        told = await server.raw(chunked + b"b\r\n12345678901\r\n0\r\n\r\n")
        assert b"413" in told.splitlines()[0]

    async def short(request: Request) -> Response:
        return text(200, str(len(await request.read(5))))

    async with serving(short) as server:
        assert (await server.ask("POST", "/", body=b"12345")).body == b"5"
        assert (await server.ask("POST", "/", body=b"123456")).status == 413
        told = await server.raw(chunked + b"6\r\n123456\r\n0\r\n\r\n")
        assert b"413" in told.splitlines()[0]


async def ignore(_request: Request) -> Response:
    return text(200, "no need")


async def test_a_small_unread_body_does_not_end_the_connection() -> None:
    async with serving(ignore) as server, server.talk() as talk:
        assert (await talk.ask("POST", "/", body=b"x" * 500_000)).status == 200
        assert (await talk.ask("POST", "/", body=b"x")).status == 200


async def test_a_large_unread_body_is_not_waited_for_and_the_answer_arrives() -> None:
    head = post(900000000)
    async with serving(ignore) as server, await server.connect() as stream:
        await stream.send_all(head + b"x" * 1_000_000)
        told = b"".join([piece async for piece in stream])
        assert b"no need" in told
        assert b"Connection: close" in told


async def test_a_client_that_asks_first_is_told_to_continue_only_if_wanted() -> None:
    head = (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    async with serving(echo) as server, await server.connect() as stream:
        await stream.send_all(head)
        assert await stream.receive_some(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"body")
        assert (await stream.receive_some(1000)).endswith(b"|body")
    async with serving(ignore) as server, await server.connect() as stream:
        await stream.send_all(head)
        told = b"".join([piece async for piece in stream])
        assert b"100" not in told.splitlines()[0]
        assert b"no need" in told


async def test_a_slow_reader_holds_up_the_upload_and_not_the_memory() -> None:
    received = trio.Event()
    go_on = trio.Event()

    async def wait(request: Request) -> Response:
        total = 0
        async for piece in request.body:
            assert len(piece) <= 1 << 18
            total += len(piece)
            received.set()
            await go_on.wait()
        return text(200, str(total))

    size = 64 << 20
    async with serving(wait) as server, await server.connect() as stream:
        await stream.send_all(post(size))
        sent = 0
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                nonlocal sent
                while sent < size:
                    await stream.send_all(b"x" * (1 << 20))
                    sent += 1 << 20

            nursery.start_soon(send)
            await received.wait()
            # Until nothing moves any more: only the sockets' buffers are full.
            before = -1
            while before != sent:
                before = sent
                await trio.testing.wait_all_tasks_blocked(0.05)
            assert sent < size / 2
            go_on.set()
        assert (await stream.receive_some(1000)).endswith(str(size).encode())


# -- faults ----------------------------------------------------------------


async def test_a_broken_handler_fails_its_request_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(request: Request) -> Response:
        if request.path == "/broken":
            raise ZeroDivisionError
        return text(200, "fine")

    async with serving(broken) as server, server.talk() as talk:
        answer = await talk.ask("GET", "/broken")
        assert answer.status == 500
        assert answer.json["errorId"] in caplog.text
        assert "ZeroDivisionError" in caplog.text
        assert (await talk.ask("GET", "/")).body == b"fine"


async def test_a_refusal_carries_its_code_and_headers() -> None:
    async def refuse(_request: Request) -> Response:
        raise RefusedError(429, "busy", "Later.", headers=(("Retry-After", "7"),))

    async with serving(refuse) as server, server.talk() as talk:
        answer = await talk.ask("GET", "/")
        assert (answer.status, answer.headers["retry-after"]) == (429, "7")
        assert (answer.json["code"], answer.json["description"]) == ("busy", "Later.")
        assert (await talk.ask("GET", "/")).status == 429


async def test_a_stream_that_breaks_ends_the_connection_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(_request: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"some"
            raise ZeroDivisionError

        return Response(200, (), pieces())

    async with serving(breaks) as server:
        told = await server.raw(GET)
        assert told.endswith(b"4\r\nsome\r\n")
    assert "ZeroDivisionError" in caplog.text


async def test_a_line_break_cannot_get_into_a_header(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def split(_request: Request) -> Response:
        return Response(302, (("Location", "/x\r\nSet-Cookie: a=b"),))

    async with serving(split) as server:
        assert await server.raw(GET) == b""
    assert "line break" in caplog.text


async def test_a_client_that_resets_in_its_body_is_not_answered_nor_logged_as_a_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[BaseException] = []
    over = trio.Event()

    async def read(request: Request) -> Response:
        try:
            return text(200, str(len(await request.read(1000))))
        except BaseException as error:
            seen.append(error)
            raise
        finally:
            over.set()

    async with serving(read) as server:
        stream = await server.connect()
        await stream.send_all(post(9) + b"x")
        await trio.testing.wait_all_tasks_blocked(0.05)
        linger = struct.pack("ii", 1, 0)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await stream.aclose()
        await over.wait()
        assert (await server.ask("GET", "/")).status == 200
    assert isinstance(seen[0], ClientGoneError)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_file_that_shrinks_ends_the_connection_and_is_closed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    bodies: list[FileBody] = []

    async def lie(request: Request) -> Response:
        response = file_response(request, str(path))
        assert isinstance(response.body, FileBody)
        response.body.length += 10
        bodies.append(response.body)
        return response

    async with serving(lie) as server:
        told = await server.raw(GET)
        assert told.endswith(b"\r\n\r\n" + b"x" * 1000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        bodies[0].close()


# -- the log ----------------------------------------------------------------


async def test_every_request_is_told_to_the_access_log() -> None:
    log: list[AccessRecord] = []
    async with serving(echo, access_log=log.append) as server:
        async with server.talk() as talk:
            await talk.ask("POST", "/a", headers=[("User-Agent", "me/1")], body=b"abc")
        await server.raw(b"NONSENSE\r\n\r\n")
    assert [(r.method, r.path, r.status) for r in log] == [
        ("POST", "/a", 200),
        ("-", "-", 400),
    ]
    assert (log[0].received_bytes, log[0].user_agent) == (3, "me/1")
    assert log[0].sent_bytes > 12
    assert log[0].seconds >= 0
    assert log[0].peer.startswith("127.0.0.1:")


async def test_routes_work_behind_the_server() -> None:
    router = Router()
    router.add("GET", "/x/{name}", echo)
    async with serving(router) as server:
        assert (await server.ask("GET", "/x/y")).status == 200
        assert (await server.ask("GET", "/nowhere")).status == 404
        answer = await server.ask("DELETE", "/x/y")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
