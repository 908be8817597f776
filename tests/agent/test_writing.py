"""The agent's end of the writer: one reply a request, whatever is cancelled or dies."""

import os
import signal
import struct
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgpack
import pytest
import trio

from p2p.agent import writing
from p2p.agent.writing import (
    ProcessWriter,
    ThreadWriter,
    open_lasting_writer,
    open_process_writer,
)
from p2p.errors import (
    ConfigError,
    FormatError,
    LimitError,
    LockedError,
    NoSpaceError,
    WriterError,
)
from p2p.ostree.config import RepoMode
from p2p.ostree.messages import (
    MAX_BULK_BYTES,
    AddPiece,
    Done,
    Failed,
    Form,
    Rejection,
    Reply,
    Request,
    StageObjects,
    Sync,
    decode,
    encode,
)
from p2p.ostree.repo import Repo
from tests.ostree.samples import file_object, make_repo

NAME, DATA = file_object(b"content")
LARGE = AddPiece(NAME, bytes(8 << 20), last=True)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER)


# -- on a thread ---------------------------------------------------------------------


async def test_a_thread_carries_out_one_request_at_a_time() -> None:
    busy = threading.Lock()
    seen: list[Request] = []

    def handle(request: Request) -> Reply:
        assert busy.acquire(blocking=False)
        seen.append(request)
        busy.release()
        return Done((Rejection(NAME, str(len(seen))),))

    writer = ThreadWriter(handle)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(writer.call, Sync())
    assert len(seen) == 20
    assert (await writer.call(LARGE)).rejected[0].reason == "21"


async def test_a_failure_on_the_thread_is_raised_as_what_it_was() -> None:
    writer = ThreadWriter(lambda _: Failed.of(NoSpaceError("full", hint="Wait.")))
    with pytest.raises(NoSpaceError, match="full") as caught:
        await writer.call(Sync())
    assert caught.value.hint == "Wait."


# -- over a socket, with a writer played by the test -----------------------------------

Play = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def played_by(play: Play) -> AsyncIterator[ProcessWriter]:
    """A writer at the other end of a socket that does what `play` does."""
    ours, theirs = trio.socket.socketpair()
    async with trio.open_nursery() as nursery:
        stream = trio.SocketStream(theirs)

        async def run() -> None:
            async with stream:
                await play(stream)

        nursery.start_soon(run)
        with ours:
            yield ProcessWriter(ours)
        nursery.cancel_scope.cancel()


async def receive(stream: trio.SocketStream) -> Request | Reply | None:
    """The next message from the agent."""
    data = b""

    async def exactly(count: int) -> bytes:
        nonlocal data
        while len(data) < count:
            more = await stream.receive_some()
            if not more:
                return data
            data += more
        taken, data = data[:count], data[count:]
        return bytes(taken)

    pieces = [await exactly(4)]
    if not pieces[0]:
        return None
    (length,) = struct.unpack(">I", pieces[0])
    pieces.append(await exactly(length))
    pieces += [await exactly(size) for size in msgpack.unpackb(pieces[1])[2]]
    assert data == b"", "the agent did not wait for the reply"
    queue = list(filter(None, pieces))
    return decode(lambda _: queue.pop(0) if queue else b"")


def answering(*replies: Reply) -> Play:
    """Answer each request with the next of these."""

    async def play(stream: trio.SocketStream) -> None:
        for reply in replies:
            assert await receive(stream) is not None
            await stream.send_all(b"".join(encode(reply)))

    return play


def sending(data: bytes) -> Play:
    """Answer the first request with these bytes."""

    async def play(stream: trio.SocketStream) -> None:
        await receive(stream)
        await stream.send_all(data)

    return play


def framed(value: object) -> bytes:
    control: bytes = msgpack.packb(value)
    return len(control).to_bytes(4, "big") + control


async def test_replies_are_those_of_the_requests() -> None:
    rejected = Done((Rejection(NAME, "torn"),))
    async with played_by(answering(Done(), rejected, Done())) as writer:
        assert await writer.call(Sync()) == Done()
        assert await writer.call(LARGE) == rejected
        assert await writer.call(Sync()) == Done()


async def test_more_buffers_than_the_kernel_takes_at_once_arrive() -> None:
    objects = tuple((NAME, Form.CANONICAL, b"%d" % n) for n in range(3000))
    request = StageObjects(objects)
    got: list[object] = []

    async def play(stream: trio.SocketStream) -> None:
        got.append(await receive(stream))
        await stream.send_all(b"".join(encode(Done())))

    async with played_by(play) as writer:
        await writer.call(request)
    assert got == [request]


@pytest.mark.parametrize(
    "error",
    [
        NoSpaceError("full"),
        FormatError("not a commit"),
        LimitError("too many"),
        WriterError("odd"),
        ConfigError("config", "wrong"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_failure_is_raised_as_what_it_was_and_is_no_end(
    error: FormatError | NoSpaceError | WriterError | ConfigError,
) -> None:
    async with played_by(answering(Failed.of(error), Done())) as writer:
        with pytest.raises(type(error)) as caught:
            await writer.call(Sync())
        assert str(caught.value) == str(error)
        assert await writer.call(Sync()) == Done()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\x01\xc1",
        framed(["Done", [], []]),
        framed(["Sync", [], []]),
        framed(["Done", [[]], [5]]) + b"extra",
        b"",
        b"\0\0",
        framed(["Done", [[]], []])[:-1],
    ],
    ids=[
        "endless",
        "no MessagePack",
        "fields missing",
        "a request",
        "with bulk",
        "nothing",
        "cut in the length",
        "cut in the message",
    ],
)
async def test_what_is_no_reply_is_the_writers_fault(data: bytes) -> None:
    async with played_by(sending(data)) as writer:
        with pytest.raises(WriterError):
            await writer.call(Sync())


async def test_a_writer_that_vanished_is_said_to_have_again_and_again() -> None:
    async with played_by(answering()) as writer:
        for _ in range(3):
            with pytest.raises(WriterError, match=r"vanished|without a reply"):
                await writer.call(LARGE)


async def test_a_request_that_is_too_large_is_not_sent() -> None:
    async with played_by(answering(Done())) as writer:
        with pytest.raises(LimitError):
            await writer.call(AddPiece(NAME, bytes(MAX_BULK_BYTES + 1), last=True))
        assert await writer.call(Sync()) == Done()


async def test_a_call_cancelled_while_it_waits_is_answered_to_the_next_one_first() -> (
    None
):
    stale, fresh = (Done((Rejection(NAME, word),)) for word in ("stale", "fresh"))
    received = trio.Event()
    go_on = trio.Event()

    async def play(stream: trio.SocketStream) -> None:
        await receive(stream)
        received.set()
        await go_on.wait()
        await stream.send_all(b"".join(encode(stale)))
        await receive(stream)
        await stream.send_all(b"".join(encode(fresh)))

    async with played_by(play) as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.call, Sync())
            await received.wait()
            nursery.cancel_scope.cancel()
        go_on.set()
        assert await writer.call(Sync()) == fresh


async def test_a_call_cancelled_in_the_middle_of_its_bytes_is_sent_to_its_end() -> None:
    got: list[object] = []
    go_on = trio.Event()

    async def play(stream: trio.SocketStream) -> None:
        await go_on.wait()
        for _ in range(2):
            got.append(await receive(stream))
            await stream.send_all(b"".join(encode(Done())))

    async with played_by(play) as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.call, LARGE)
            # Nobody reads: the call stands still when the buffers are full.
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert 0 < sum(map(len, writer._unsent)) < 8 << 20
        go_on.set()
        assert await writer.call(Sync()) == Done()
    assert got == [LARGE, Sync()]


async def test_a_call_cancelled_before_it_began_was_never_made() -> None:
    async with played_by(answering(Done())) as writer:
        with trio.CancelScope() as scope:
            scope.cancel()
            await writer.call(LARGE)
        assert await writer.call(Sync()) == Done()


# -- a process -------------------------------------------------------------------------


async def test_a_writer_process_stages_for_its_agent(repo: Repo) -> None:
    async with open_process_writer(repo.path) as writer:
        request = StageObjects(((NAME, Form.CANONICAL, DATA),))
        assert await writer.call(request) == Done()
        assert await writer.call(Sync()) == Done()


async def test_settings_count_instead_of_the_repositorys(repo: Repo) -> None:
    settings = {"min-free-space-size": "1000000TB"}
    async with open_process_writer(repo.path, settings) as writer:
        with pytest.raises(NoSpaceError, match="must stay free"):
            await writer.call(StageObjects(((NAME, Form.CANONICAL, DATA),)))


async def test_what_keeps_the_writer_from_opening_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an OSTree repository") as caught:
        async with open_process_writer(str(tmp_path)):
            pytest.fail("a writer without a repository")
    assert "p2p init" in caught.value.hint


async def test_a_program_that_is_not_there_is_named(repo: Repo) -> None:
    with pytest.raises(WriterError, match="/nowhere/writer"):
        async with open_process_writer(repo.path, command=["/nowhere/writer"]):
            pytest.fail("a writer without a program")


async def test_a_program_that_is_no_writer_is_found_out(repo: Repo) -> None:
    with pytest.raises(WriterError, match="without a reply"):
        async with open_process_writer(repo.path, command=["true"]):
            pytest.fail("a writer that is none")


async def test_nothing_is_imported_from_the_current_directory(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("p2p", "msgpack"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit(66)")
    monkeypatch.chdir(tmp_path)
    async with open_process_writer(repo.path) as writer:
        assert await writer.call(Sync()) == Done()


def talking(body: str) -> list[str]:
    """A program that greets as a writer does and then runs `body`."""
    program = (
        "import os, signal, socket, sys, time\n"
        f"sys.path.append({str(Path(__file__).parents[2])!r})\n"
        "from p2p.ostree.messages import Done, encode\n"
        "s = socket.socket(fileno=int(sys.argv[2]))\n"
        "done = b''.join(encode(Done()))\n"
        f"{body}\n"
    )
    return [sys.executable, "-P", "-c", program]


async def test_a_writer_that_does_not_end_is_killed(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_GRACE_SECONDS", 0.05)
    note = tmp_path / "pid"
    command = talking(
        f"open({str(note)!r}, 'w').write(str(os.getpid()))\n"
        "s.sendall(done)\n"
        "while True: signal.pause()"
    )
    async with open_process_writer(repo.path, command=command):
        pid = int(note.read_text())
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_ctrl_c_is_not_for_the_writer(repo: Repo, tmp_path: Path) -> None:
    note = tmp_path / "group"
    command = talking(
        f"open({str(note)!r}, 'w').write(str(os.getpgid(0)))\ns.sendall(done)"
    )
    async with open_process_writer(repo.path, command=command):
        assert int(note.read_text()) != os.getpgid(0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_writer_that_dies_in_the_middle_is_an_error_and_no_hang(
    repo: Repo, number: signal.Signals
) -> None:
    command = talking(
        f"s.sendall(done)\ns.recv(100)\nos.kill(os.getpid(), {int(number)})"
    )
    async with open_process_writer(repo.path, command=command) as writer:
        for _ in range(2):
            with pytest.raises(WriterError):
                await writer.call(LARGE)


async def test_an_error_in_the_block_ends_the_writer_and_comes_through(
    repo: Repo,
) -> None:
    with pytest.raises(LockedError):
        async with open_process_writer(repo.path):
            raise LockedError("somebody")


async def test_a_block_that_is_cancelled_ends_the_writer(repo: Repo) -> None:
    with trio.CancelScope() as scope:
        async with open_process_writer(repo.path) as writer:
            scope.cancel()
            await writer.call(Sync())
    assert scope.cancelled_caught
    async with open_process_writer(repo.path) as writer:
        await writer.call(Sync())


# -- a writer that lasts ---------------------------------------------------------------


async def test_a_writer_that_was_lost_is_opened_anew_for_the_next_call(
    repo: Repo, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    command = talking(
        f"open({str(note)!r}, 'w').write(str(os.getpid()))\n"
        "s.sendall(done)\n"
        "while s.recv(1 << 16): s.sendall(done)"
    )
    start = partial(open_process_writer, repo.path, command=command)
    async with open_lasting_writer(start) as writer:
        await writer.call(Sync())
        first = int(note.read_text())
        os.kill(first, signal.SIGKILL)
        with pytest.raises(WriterError):
            await writer.call(Sync())
        assert await writer.call(Sync()) == Done()
        second = int(note.read_text())
        assert second != first
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_failure_that_a_writer_reports_is_no_reason_for_another(
    repo: Repo,
) -> None:
    opened = 0

    @asynccontextmanager
    async def start() -> AsyncIterator[ProcessWriter]:
        nonlocal opened
        opened += 1
        async with played_by(
            answering(Failed.of(WriterError("odd")), Done())
        ) as writer:
            yield writer

    async with open_lasting_writer(start) as writer:
        with pytest.raises(WriterError, match="odd"):
            await writer.call(Sync())
        assert await writer.call(Sync()) == Done()
    assert opened == 1


async def test_while_no_writer_can_be_opened_each_call_says_why(
    repo: Repo, tmp_path: Path
) -> None:
    path = Path(repo.path)
    async with open_lasting_writer(partial(open_process_writer, repo.path)) as writer:
        await writer.call(Sync())
        assert writer._writer is not None
        writer._writer.lost = True
        path.rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(ConfigError, match="not an OSTree repository"):
                await writer.call(Sync())
        (tmp_path / "away").rename(path)
        assert await writer.call(Sync()) == Done()
