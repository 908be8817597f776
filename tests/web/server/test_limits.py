"""What a client may cost the HTTP server: time, connections, and its end."""

import resource
import socket
from collections.abc import AsyncGenerator

import pytest
import trio
import trio.testing

from p2p.web.server.exchange import Request, Response, text
from p2p.web.server.limits import Limits
from tests.web.server.talk import GET, echo, post, serving

QUICK = Limits(
    idle_seconds=0.2, head_seconds=0.2, stall_seconds=0.2, linger_seconds=0.2
)
PATIENT = Limits(grace_seconds=30)


# -- time ----------------------------------------------------------------


async def test_a_head_that_does_not_end_is_answered_408() -> None:
    async with serving(echo, limits=QUICK) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHo")
        told = b"".join([piece async for piece in stream])
        assert told.startswith(b"HTTP/1.1 408 ")


async def test_a_head_that_trickles_in_is_cut_off_too() -> None:
    async with serving(echo, limits=QUICK) as server, await server.connect() as stream:
        told = b""
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                await stream.send_all(b"GET / HTTP/1.1\r\nX: ")
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(0.02)

            nursery.start_soon(trickle)
            told += await stream.receive_some(1000)
            nursery.cancel_scope.cancel()
        assert told.startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with serving(echo, limits=QUICK) as server, server.talk() as talk:
        await talk.ask("GET", "/")
        assert await talk.stream.receive_some(100) == b""
    async with serving(echo, limits=QUICK) as server, server.talk() as talk:
        assert await talk.stream.receive_some(100) == b""


async def test_a_body_that_stops_coming_is_answered_408_and_the_handler_ends() -> None:
    ended = []

    async def read(request: Request) -> Response:
        try:
            return text(200, str(len(await request.read(1000))))
        finally:
            ended.append(True)

    async with serving(read, limits=QUICK) as server, await server.connect() as stream:
        await stream.send_all(post(9) + b"x")
        told = b"".join([piece async for piece in stream])
        assert told.startswith(b"HTTP/1.1 408 ")
        assert ended == [True]


async def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    limits = Limits(stall_seconds=0.3, slowest_bytes_per_second=1000)
    async with serving(echo, limits=limits) as server, await server.connect() as stream:
        head = post(1000)
        told = b""
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                await stream.send_all(head)
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(0.02)

            nursery.start_soon(trickle)
            told += await stream.receive_some(1000)
            nursery.cancel_scope.cancel()
        assert told.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_does_not_read_its_answer_is_given_up() -> None:
    gone = trio.Event()

    async def much(_request: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield b"x" * 100_000
            finally:
                gone.set()

        return Response(200, (), pieces())

    async with serving(much, limits=QUICK) as server, await server.connect() as stream:
        await stream.send_all(GET)
        with trio.fail_after(20):
            await gone.wait()


async def test_a_client_that_takes_its_answer_slowly_gets_it_to_the_end() -> None:
    """No piece of it is through in the time that a client may take for nothing."""
    length = 32 << 20

    async def much(_request: Request) -> Response:
        return Response(200, (), bytes(length))

    async with serving(much, limits=QUICK) as server, await server.connect() as stream:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await stream.send_all(GET)
        began, got = trio.current_time(), 0
        while got < length:
            data = await stream.receive_some(1 << 20)
            assert data, "cut off"
            got += len(data)
            await trio.sleep(QUICK.stall_seconds / 200)
        assert trio.current_time() - began > QUICK.stall_seconds


async def test_a_stream_may_pause_for_as_long_as_it_likes() -> None:
    """What is waited for then is not the client."""

    async def pausing(_request: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            # More than the sockets hold, so that the client is waited for first.
            yield b"x" * 8_000_000
            await trio.sleep(QUICK.stall_seconds * 4)
            yield b"end"

        return Response(200, (), pieces())

    async with serving(pausing, limits=QUICK) as server:
        assert (await server.ask("GET", "/")).body.endswith(b"xend")


# -- number ----------------------------------------------------------------


async def test_when_full_the_longest_idle_connection_makes_room() -> None:
    limits = Limits(connections=2)
    async with (
        serving(echo, limits=limits) as server,
        server.talk() as first,
        server.talk() as second,
    ):
        await first.ask("GET", "/")
        await second.ask("GET", "/")
        await first.ask("GET", "/")
        assert (await server.ask("GET", "/third")).status == 200
        assert await second.is_closed()
        assert (await first.ask("GET", "/")).status == 200


async def test_when_full_of_busy_connections_a_newcomer_gets_503() -> None:
    release = trio.Event()

    async def wait(_request: Request) -> Response:
        await release.wait()
        return text(200, "done")

    async with (
        serving(wait, limits=Limits(connections=1)) as server,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            assert (await server.ask("GET", "/")).body == b"done"

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert b"HTTP/1.1 503 " in await server.raw(b"")
        release.set()


async def test_out_of_descriptors_means_waiting_and_not_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(echo) as server, server.talk() as talk:
        await talk.ask("GET", "/")
        client = socket.socket()
        client.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        try:
            with pytest.raises(BlockingIOError):
                client.connect(("127.0.0.1", server.port))
            with trio.fail_after(10):
                while "no connection can be accepted" not in caplog.text:
                    await trio.testing.wait_all_tasks_blocked(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.close()
        assert (await server.ask("GET", "/later")).status == 200
        assert await talk.is_closed()  # it was idle and made room


# -- the end ----------------------------------------------------------------


async def test_at_shutdown_running_requests_are_finished_and_idle_ones_closed() -> None:
    started, release = trio.Event(), trio.Event()

    async def wait(_request: Request) -> Response:
        started.set()
        await release.wait()
        return text(200, "finished")

    async with (
        serving(wait, limits=PATIENT) as server,
        server.talk() as busy,
        server.talk() as idle,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            answer = await busy.ask("GET", "/")
            assert answer.body == b"finished"
            assert answer.headers["connection"] == "close"

        nursery.start_soon(ask)
        await started.wait()
        server.shutdown.set()
        assert await idle.is_closed()
        with pytest.raises(OSError, match="connect"):
            await server.connect()
        release.set()


async def hang(_request: Request) -> Response:
    await trio.sleep_forever()


async def test_at_shutdown_what_does_not_end_in_time_is_cut_off() -> None:
    async with (
        serving(hang, limits=Limits(grace_seconds=0.05)) as s,
        await s.connect() as stream,
    ):
        await stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked(0.05)
        s.shutdown.set()
        assert await stream.receive_some(100) == b""
