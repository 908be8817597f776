"""The writer as a process: what it answers, and with what status it ends."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from p2p.errors import ConfigError, FormatError, ReadOnlyError, WriterError
from p2p.ostree.holdings import STAGE_PATH
from p2p.ostree.messages import (
    AddPiece,
    BeginObject,
    Done,
    Failed,
    Form,
    Publish,
    Reply,
    Request,
    StageObjects,
    Sync,
    decode,
    encode,
)
from p2p.ostree.repo import Repo
from p2p.writer.process import main
from tests.mounts import MakeMount
from tests.ostree.samples import SAMPLE, file_object
from tests.trees import MIB

NAME, DATA = file_object(b"content")


@dataclass
class Agent:
    """The other end of a writer that runs on a thread."""

    socket: socket.socket
    status: list[int] = field(default_factory=list)

    def send(self, *messages: Request | Reply) -> None:
        for message in messages:
            self.socket.sendall(b"".join(encode(message)))

    def replies(self) -> list[Request | Reply]:
        """All replies until the writer closes its end."""
        with self.socket.makefile("rb") as reader:
            return list(iter(lambda: decode(reader.read), None))


@contextmanager
def writer(path: str | Path, *options: str) -> Iterator[Agent]:
    """Run `main`; its status is there after the block."""
    ours, theirs = socket.socketpair()
    agent = Agent(ours)
    # The process closes the descriptor it was given, so this object must forget it.
    arguments = [str(path), str(theirs.detach()), *options]
    thread = threading.Thread(target=lambda: agent.status.append(main(arguments)))
    thread.start()
    with ours:
        ours.settimeout(60)
        yield agent
    thread.join(60)


def talk(path: str | Path, *messages: Request | Reply) -> tuple[list[object], int]:
    """Send all messages and end; the replies and the writer's status."""
    with writer(path) as agent:
        agent.send(*messages)
        agent.socket.shutdown(socket.SHUT_WR)
        replies = agent.replies()
    return list(replies), agent.status[0]


def scratch_files(repo: Repo) -> list[Path]:
    return list(Path(repo.path, STAGE_PATH, "tmp").glob("writer-*"))


def test_it_greets_answers_in_order_and_ends(repo: Repo) -> None:
    replies, status = talk(
        repo.path,
        StageObjects(((NAME, Form.CANONICAL, DATA),)),
        Publish(remote="nowhere", commits=(), refs=()),
        Sync(),
    )
    assert status == 0
    greeting, staged, failed, synced = replies
    assert greeting == staged == synced == Done()
    assert isinstance(failed, Failed)
    assert failed.kind == "ConfigError"
    assert scratch_files(repo) == []


def test_an_agent_that_asks_nothing_is_no_error(repo: Repo) -> None:
    assert talk(repo.path) == ([Done()], 0)


def test_a_directory_that_is_no_repository_is_said_to_be_none(tmp_path: Path) -> None:
    replies, status = talk(tmp_path)
    (failed,) = replies
    assert isinstance(failed, Failed)
    assert failed.kind == "ConfigError"
    assert "p2p init" in failed.hint
    assert status == ConfigError.exit_code


def test_a_repository_that_cannot_be_written_is_said_to_be_one(
    repo: Repo, tmpfs: MakeMount
) -> None:
    point = tmpfs(MIB)
    subprocess.run(["cp", "-a", repo.path, point / "repo"], check=True)
    subprocess.run(["mount", "-o", "remount,ro", point], check=True)
    replies, status = talk(point / "repo")
    (failed,) = replies
    assert isinstance(failed, Failed)
    assert failed.kind == "ReadOnlyError"
    assert status == ReadOnlyError.exit_code


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x01\xc1", b"\0\0", b"\0\0\0\x09\x93"],
    ids=["HTTP", "no MessagePack", "cut off", "cut off later"],
)
def test_nonsense_is_not_answered(
    repo: Repo, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with writer(repo.path) as agent:
        agent.send(BeginObject(NAME, Form.CANONICAL, len(DATA)))
        agent.send(AddPiece(NAME, DATA[:20], last=False))
        agent.socket.sendall(data)
        agent.socket.shutdown(socket.SHUT_WR)
        assert agent.replies() == [Done(), Done(), Done()]
    assert agent.status[0] in {FormatError.exit_code, 42}
    assert capfd.readouterr().err.startswith("writer: message")
    assert scratch_files(repo) == []


def test_a_reply_where_a_request_belongs_ends_it(repo: Repo) -> None:
    replies, status = talk(repo.path, Done(), Sync())
    assert replies == [Done()]
    assert status == FormatError.exit_code


def test_an_agent_that_went_away_is_the_end_and_what_is_staged_stays(
    repo: Repo, capfd: pytest.CaptureFixture[str]
) -> None:
    with writer(repo.path) as agent:
        greeting = encode(Done())[0]
        assert agent.socket.recv(len(greeting), socket.MSG_WAITALL) == greeting
        agent.socket.shutdown(socket.SHUT_RD)
        agent.send(StageObjects(((NAME, Form.CANONICAL, DATA),)))
    assert agent.status == [WriterError.exit_code]
    assert "went away" in capfd.readouterr().err
    assert list(Repo.open(Path(repo.path, STAGE_PATH)).all_objects()) == [NAME]


def test_an_agent_that_went_away_in_the_middle_leaves_no_scratch_files(
    repo: Repo,
) -> None:
    request = b"".join(encode(AddPiece(NAME, DATA, last=True)))
    with writer(repo.path) as agent:
        agent.send(BeginObject(NAME, Form.CANONICAL, len(DATA)))
        agent.socket.sendall(request[:-5])
        agent.socket.shutdown(socket.SHUT_WR)
        assert agent.replies() == [Done(), Done()]
    assert agent.status == [FormatError.exit_code]
    assert scratch_files(repo) == []


def test_large_requests_are_read_whole(repo: Repo) -> None:
    objects = [file_object(bytes([n]) * 3_000_000) for n in range(5)]
    batch = StageObjects(tuple((n, Form.CANONICAL, d) for n, d in objects))
    assert talk(repo.path, batch) == ([Done(), Done()], 0)
    store = Repo.open(Path(repo.path, STAGE_PATH))
    assert set(store.all_objects()) == {name for name, _ in objects}


def test_it_can_be_started_as_a_module(repo: Repo) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "p2p.writer", repo.path, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
            )
        objects = tuple((n, Form.CANONICAL, d) for n, d in SAMPLE.objects.items())
        ours.sendall(b"".join(encode(StageObjects(objects))))
        ours.shutdown(socket.SHUT_WR)
        assert Agent(ours).replies() == [Done(), Done()]
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--os=a"],
        ["--tree=a", "--sysroot=b"],
        ["--tree=a", "--os=b"],
        ["--deploy=a"],
        ["--tree"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_options_that_it_does_not_have_are_refused(
    repo: Repo, options: list[str]
) -> None:
    with writer(repo.path, *options) as agent:
        (failed,) = agent.replies()
    assert isinstance(failed, Failed)
    assert failed.kind == "ConfigError"
    assert agent.status == [ConfigError.exit_code]
