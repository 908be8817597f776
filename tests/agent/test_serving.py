"""What a device answers to a neighbour: what it shares, and nothing else."""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import nacl.signing
import pytest
import trio

from p2p.agent.meeting import Meeting
from p2p.agent.scratch import Page
from p2p.agent.sharing import SharedCommit
from p2p.deploy.tree import TreeDeployer
from p2p.net.identity import open_identity
from p2p.net.session import Session
from p2p.net.target import Target
from p2p.net.tls import Endpoint, dial
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum, ObjectName, ObjectType, checksum_of
from p2p.ostree.repo import Repo
from p2p.swarm.action import AnnounceHave
from p2p.trust.policy import Clock
from p2p.wire import messages as m
from p2p.wire.hashes import statement
from p2p.wire.limits import UNIT_BYTES
from tests.agent.devices import REF, Publisher, sharing
from tests.trees import MIB, random_tree

T = TypeVar("T", bound=m.Message)
STRANGE = ObjectName(Checksum("ee" * 32), ObjectType.FILE)


@dataclass
class Client:
    """Speaks the protocol to one device."""

    session: Session
    heard: list[m.Message] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)

    def receive(self, message: m.Message) -> None:
        self.heard.append(message)
        self._news.set()
        self._news = trio.Event()

    async def wait_for(self, kind: type[T]) -> T:
        while (found := self.last(kind)) is None:
            await self._news.wait()
        return found

    async def ask(self, kind: type[T], build: Callable[[m.RequestId], m.Request]) -> T:
        """Send a request; return its answer, which must be of this kind."""
        answer = await self.answer(build)
        assert isinstance(answer, kind), answer
        return answer

    async def answer(self, build: Callable[[m.RequestId], m.Request]) -> m.Message:
        """Send a request; return its answer."""
        request = build(self.session.connection.new_request())
        self.session.send(request)
        while True:
            for message in self.heard:
                if getattr(message, "request", None) == request.request and (
                    isinstance(message, m.BulkAnswer | m.PlainAnswer)
                ):
                    self.heard.remove(message)
                    return message
            await self._news.wait()

    def last(self, kind: type[T]) -> T | None:
        found = [message for message in self.heard if isinstance(message, kind)]
        return found[-1] if found else None


@asynccontextmanager
async def client_of(meeting: Meeting, directory: Path) -> AsyncIterator[Client]:
    """Connect as a device that has nothing."""
    identity = open_identity(str(directory / "client"))
    endpoint = Endpoint(identity, lambda: Clock(time.time(), trusted=True))
    contact = await dial(endpoint, [Target("127.0.0.1", meeting.port)])
    client = Client(Session(contact.stream, contact.peer))
    hello = m.Hello(software="t", site="", instance=b"c" * 16, epoch=1, dial=1)

    async def run() -> None:
        await client.session.run(hello, client.receive, lambda _: None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(20):
            await client.wait_for(m.Holdings)
            yield client
        client.session.leave(m.Farewell.LEAVING)


@asynccontextmanager
async def talking(
    publisher: Publisher, directory: Path
) -> AsyncIterator[tuple[Meeting, Client]]:
    """A device that shares what was published, and a client of it."""
    async with (
        sharing(publisher.repo) as meeting,
        client_of(meeting, directory) as client,
    ):
        yield meeting, client


def partial_want(names: tuple[ObjectName, ...]) -> Callable[[m.RequestId], m.Request]:
    return lambda number: m.Want(number, UNIT_BYTES, names)


def partial_unit(name: ObjectName, at: int) -> Callable[[m.RequestId], m.Request]:
    return lambda number: m.GetUnit(number, name, at, UNIT_BYTES)


def spoil(path: Path) -> None:
    """Flip the last bit of an object."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.unlink()
    path.write_bytes(content)


def flip_in_place(path: Path) -> None:
    """Flip the last bit of a file, as a failing disk does: its other names have it."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher.create(tmp_path)


@pytest.fixture
def commit(publisher: Publisher, tmp_path: Path) -> Checksum:
    tree = tmp_path / "tree"
    random_tree(tree, seed=2, files=40, size=MIB)
    (tree / "large").write_bytes(os.urandom(5 * UNIT_BYTES + 17))
    return publisher.commit(tree)


def names_of(meeting: Meeting, commit: Checksum) -> list[ObjectName]:
    shared = meeting.sharing.commit(commit)
    assert shared is not None
    return shared.closure


async def test_holdings_name_commits_and_refs(
    tmp_path: Path, publisher: Publisher, commit: Checksum
) -> None:
    async with (
        sharing(publisher.repo) as meeting,
        client_of(meeting, tmp_path) as client,
    ):
        holdings = client.last(m.Holdings)
        assert holdings is not None
        assert holdings.commits == (m.HeldCommit(commit, m.Held.COMPLETE),)
        assert holdings.refs == (m.HeldRef(REF, "", commit),)
        found = await client.ask(m.CommitData, lambda n: m.GetHead(n, REF))
        assert checksum_of(found.commit) == found.checksum == commit
        assert found.commitmeta is not None
        again = await client.ask(m.CommitData, lambda n: m.GetCommit(n, commit))
        assert again.commit == found.commit


async def test_what_is_not_shared_is_not_there(
    tmp_path: Path, publisher: Publisher, commit: Checksum
) -> None:
    async with (
        sharing(publisher.repo) as meeting,
        client_of(meeting, tmp_path) as client,
    ):
        names = names_of(meeting, commit)
        meeting.sharing.remove(commit)
        await client.ask(m.NotHave, lambda n: m.GetHead(n, REF))
        await client.ask(m.NotHave, lambda n: m.GetCommit(n, commit))
        await client.ask(m.NotHave, lambda n: m.Watch(n, commit, len(names)))
        await client.ask(m.NotHave, lambda n: m.GetUnit(n, names[-1], 0, 100))
        await client.ask(m.NotHave, lambda n: m.GetHashes(n, names[-1], 0, 10))
        sizes = await client.ask(
            m.Sizes, lambda n: m.Ask(n, tuple(map(m.prefix_of, names)))
        )
        assert set(sizes.sizes) == {None}
        batch = await client.ask(m.Batch, lambda n: m.Want(n, 4096, tuple(names[:9])))
        assert set(batch.objects) == {m.Miss.NOT_HAVE}


async def test_every_object_comes_with_the_size_that_was_said(
    tmp_path: Path, publisher: Publisher, commit: Checksum
) -> None:
    async with (
        sharing(publisher.repo) as meeting,
        client_of(meeting, tmp_path) as client,
    ):
        names = names_of(meeting, commit)
        asked = (*map(m.prefix_of, names), m.prefix_of(STRANGE))
        sizes = (await client.ask(m.Sizes, lambda n: m.Ask(n, asked))).sizes
        assert sizes[-1] is None
        small = [
            (name, size)
            for name, size in zip(names, sizes, strict=False)
            if size is not None and size <= UNIT_BYTES
        ]
        assert len(small) == len(names) - 1
        for name, size in small:
            (data,) = (await client.ask(m.Batch, partial_want((name,)))).objects
            assert isinstance(data, bytes)
            assert len(data) == size
            assert checksum_of(data) == name.checksum


async def test_a_batch_stops_at_its_limit_and_says_what_is_too_large(
    tmp_path: Path, publisher: Publisher, commit: Checksum
) -> None:
    async with (
        sharing(publisher.repo) as meeting,
        client_of(meeting, tmp_path) as client,
    ):
        names = names_of(meeting, commit)
        files = tuple(n for n in names if n.type is ObjectType.FILE)
        answer = await client.ask(m.Batch, lambda n: m.Want(n, 60_000, files))
        came = sum(len(o) for o in answer.objects if isinstance(o, bytes))
        assert 0 < came <= 60_000
        assert m.Miss.OMITTED in answer.objects
        assert m.Miss.TOO_LARGE in answer.objects


async def test_a_large_object_comes_in_units_with_signed_hashes(
    tmp_path: Path, publisher: Publisher, commit: Checksum
) -> None:
    async with (
        sharing(publisher.repo) as meeting,
        client_of(meeting, tmp_path) as client,
    ):
        asked = names_of(meeting, commit)
        sizes = (
            await client.ask(
                m.Sizes, lambda n: m.Ask(n, tuple(map(m.prefix_of, asked)))
            )
        ).sizes
        size, name = max((s or 0, n) for s, n in zip(sizes, asked, strict=True))
        hashes = await client.ask(m.Hashes, lambda n: m.GetHashes(n, name, 0, 100))
        assert hashes.size == size
        hello = client.session.connection.peer
        assert hello is not None
        assert hashes.signer == hello.signing_key
        nacl.signing.VerifyKey(hashes.signer).verify(
            statement(name, hashes.size, 0, hashes.hashes), hashes.signature
        )
        whole = b""
        for index in range(len(hashes.hashes) // 32):
            start = index * UNIT_BYTES
            unit = await client.ask(m.Unit, partial_unit(name, start))
            digest = hashes.hashes[index * 32 : index * 32 + 32]
            assert hashlib.sha256(unit.data).digest() == digest
            whole += unit.data
        assert checksum_of(whole) == name.checksum
        late = await client.ask(
            m.Rejected, lambda n: m.GetUnit(n, name, 1 << 40, UNIT_BYTES)
        )
        assert late.reason is m.Refusal.RANGE
        far = await client.ask(m.Rejected, lambda n: m.GetHashes(n, name, 9999, 5))
        assert far.reason is m.Refusal.RANGE


async def test_a_damaged_object_is_not_given_and_its_deployed_file_is_named(
    tmp_path: Path,
) -> None:
    repo = Repo.init(tmp_path / "repo", RepoMode.BARE_USER)
    random_tree(tmp_path / "tree", seed=2, files=10, size=100_000)
    commit = commit_tree(repo, tmp_path / "tree", CommitOptions(branch=REF))
    place = TreeDeployer(repo, tmp_path / "place")
    place.deploy(REF, commit)
    deployed = tmp_path / "place/current/."
    async with sharing(repo) as meeting, client_of(meeting, tmp_path) as client:
        files = [n for n in names_of(meeting, commit) if n.type is ObjectType.FILE]
        for name in files[:2]:
            flip_in_place(Path(repo.object_path(name)))
        for _ in range(2):
            answer = await client.ask(
                m.Batch, lambda n: m.Want(n, UNIT_BYTES, tuple(files[:2]))
            )
            assert set(answer.objects) == {m.Miss.NOT_HAVE}
        problems = meeting.problems()
    assert len(problems) == 2
    for name, problem in zip(files, problems, strict=False):
        assert f"object {name} is damaged; it is deployed as" in problem
        inode = os.stat(repo.object_path(name)).st_ino
        (file,) = (f for f in deployed.rglob("*") if f.lstat().st_ino == inode)
        assert str(file.resolve()) in problem


async def test_a_watcher_hears_what_comes_of_a_partial_commit(
    tmp_path: Path, publisher: Publisher, commit: Checksum
) -> None:
    async with (
        sharing(publisher.repo) as meeting,
        client_of(meeting, tmp_path) as client,
    ):
        closure = names_of(meeting, commit)
        complete = await client.ask(m.Map, lambda n: m.Watch(n, commit, len(closure)))
        assert complete.bitmap is None
        other = await client.ask(
            m.Rejected, lambda n: m.Watch(n, commit, len(closure) + 1)
        )
        assert other.reason is m.Refusal.RANGE
        index = {name: at for at, name in enumerate(closure)}
        partial = SharedCommit(commit, m.Held.PARTIAL, closure, index, {0})
        meeting.sharing.add(partial)
        answer = await client.ask(m.Map, lambda n: m.Watch(n, commit, len(closure)))
        assert answer.bitmap is not None
        meeting.sharing.add_objects([closure[5], closure[3]])
        assert partial.here == {0, 3, 5}
        news = AnnounceHave((closure[5], closure[3], STRANGE))
        meeting.neighbours.announce(news)
        have = await client.wait_for(m.Have)
        assert have.indices == (3, 5)


async def test_a_watcher_hears_of_all_arriving_objects_at_once(
    tmp_path: Path, publisher: Publisher, commit: Checksum
) -> None:
    async with (
        sharing(publisher.repo) as meeting,
        client_of(meeting, tmp_path) as client,
    ):
        closure = names_of(meeting, commit)
        index = {name: at for at, name in enumerate(closure)}
        partial = SharedCommit(commit, m.Held.PARTIAL, closure, index, {0})
        meeting.sharing.add(partial)
        scratch = meeting.company.scratch
        page = Page(9 * UNIT_BYTES, 0, bytes(9 * 32), bytes(32), bytes(64))
        for name in (closure[0], closure[5], closure[3]):
            scratch.add_page(name, page)
        scratch.write(closure[5], 8, b"unit")
        expected = m.UnitMap(3, b"\0"), m.UnitMap(5, b"\0\x80")
        await client.ask(m.Map, lambda n: m.Watch(n, commit, len(closure)))
        assert (await client.wait_for(m.Units)).objects == expected
        client.heard.clear()
        scratch.write(closure[3], 0, b"unit")
        news = AnnounceHave((), (closure[3], STRANGE, closure[0]))
        meeting.neighbours.announce(news)
        told = await client.wait_for(m.Units)
        assert told.objects == (m.UnitMap(3, b"\x80"),)


async def test_an_unfinished_commit_is_not_watched_and_giving_once_is_for_later(
    tmp_path: Path, publisher: Publisher, commit: Checksum
) -> None:
    async with (
        sharing(publisher.repo) as meeting,
        client_of(meeting, tmp_path) as client,
    ):
        begun = Checksum("ab" * 32)
        meeting.sharing.begin(begun)
        meeting.sharing.begin(begun)
        await client.ask(m.NotHave, lambda n: m.Watch(n, begun, 5))
        holdings = client.last(m.Holdings)
        assert holdings is not None
        assert m.HeldCommit(begun, m.Held.BEGUN) in holdings.commits
        assert "2 commits" in repr(meeting.sharing)
        assert next(iter(meeting.sharing.commits())).checksum == commit
