"""Large objects pass through a device before it has all of them.

Three devices in a row: Anna has a commit, Bert meets her, Cleo meets Bert alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nacl.signing
import pytest
import trio

from p2p.agent.fetching import Fetching
from p2p.agent.request import PullRequest, Wanted
from p2p.net.target import Target
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.swarm.action import Blame
from p2p.wire import messages as m
from p2p.wire.bitmap import unpack
from p2p.wire.hashes import statement
from p2p.wire.limits import MAX_PAGE_HASHES, UNIT_BYTES
from tests.agent.devices import REF, Publisher, Puller, puller, sharing
from tests.agent.test_serving import Client, client_of
from tests.hostile.scene import NOWHERE, assert_whole, until
from tests.hostile.test_content import MakesUp
from tests.hostile.villain import BentSession, Villain, running
from tests.trees import MIB, random_tree

UNITS = 24


class Anna(Villain):
    """Has everything, and gives so many units before she is told to go on."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.waits = True
        self.given = 0
        self.key = b""

    def greet(self, hello: m.Hello) -> m.Hello:
        self.key = hello.signing_key
        return hello

    def hear(self, session: BentSession, message: m.Message) -> bool:
        del session
        if not isinstance(message, m.GetUnit):
            return False
        if self.waits and self.given >= self.most:
            return True
        self.given += 1
        return False

    def go_on(self) -> None:
        self.waits = False
        for session in self.sessions:
            for asked in self.told(m.GetUnit):
                if session.connection.owes(asked.request):
                    session.server.handle(asked)


@dataclass(frozen=True, slots=True)
class Row:
    """A commit with one large object, and devices that want it."""

    directory: Path
    publisher: Publisher
    commit: Checksum
    large: ObjectName

    def device(self, name: str) -> Repo:
        return self.publisher.device(self.directory / name, NOWHERE)

    @asynccontextmanager
    async def puller(self, repo: Repo, *ports: int) -> AsyncIterator[Puller]:
        """Return a device that is about to pull from neighbours alone."""
        request = PullRequest(wanted=(Wanted(REF, self.commit),))
        async with puller(repo, peers=ports, origin=False, request=request) as device:
            await until(lambda: len(device.meeting.neighbours) == len(ports))
            yield device

    def units(self, device: Puller) -> list[int]:
        """Return which units of the large object are waiting there."""
        return unpack(device.meeting.company.scratch.bitmap(self.large))

    def begun(self, device: Puller) -> Callable[[], bool]:
        """Return what tells whether a device has read the commit's directories."""
        return lambda: (
            (shared := device.meeting.sharing.commit(self.commit)) is not None
            and shared.held is m.Held.PARTIAL
        )


@pytest.fixture
def row(tmp_path: Path) -> Row:
    publisher = Publisher.create(tmp_path)
    tree = tmp_path / "tree"
    random_tree(tree, seed=3, files=10, size=MIB // 4)
    (tree / "large").write_bytes(os.urandom((UNITS - 1) * UNIT_BYTES + 1000))
    commit = publisher.commit(tree)
    names = [n for n in publisher.repo.all_objects() if n.type is ObjectType.FILE]
    large = max(names, key=lambda n: os.stat(publisher.repo.object_path(n)).st_size)
    return Row(tmp_path, publisher, commit, large)


def fetching_of(device: Puller) -> Fetching:
    """Return what fetches objects for a device now."""
    fetching = device.meeting.neighbours.listening
    assert isinstance(fetching, Fetching)
    return fetching


def faults(device: Puller) -> list[int]:
    """Return how often each neighbour of a device broke its word, as that sees it."""
    site = fetching_of(device).scheduler._parts.site
    return [neighbour.faults for neighbour in site.neighbours.values()]


async def test_units_are_passed_on_while_the_rest_is_not_here_yet(row: Row) -> None:
    anna = Anna(most=UNITS // 2)
    bert, cleo = row.device("bert"), row.device("cleo")
    async with (
        running(anna, row.publisher.repo, row.directory),
        row.puller(bert, anna.port) as second,
        row.puller(cleo, second.meeting.port) as third,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(second.run)
        await until(row.begun(second))
        nursery.start_soon(third.run)
        await until(lambda: len(row.units(third)) == anna.most)
        assert row.units(third) == row.units(second)
        assert not any(faults(third) + faults(second))
        anna.go_on()
    for repo in (bert, cleo):
        assert_whole(repo, row.commit)
    assert anna.given <= UNITS + 2
    for device in (second, third):
        assert not device.meeting.neighbours.banned
        assert not device.meeting.company.scratch.names()


async def test_who_loses_its_relay_goes_on_with_the_units_it_has(row: Row) -> None:
    anna = Anna(most=UNITS // 2)
    bert, cleo = row.device("bert"), row.device("cleo")
    async with (
        running(anna, row.publisher.repo, row.directory),
        trio.open_nursery() as nursery,
    ):
        killed = trio.CancelScope()
        relays: list[Puller] = []

        async def relay() -> None:
            with killed:
                async with row.puller(bert, anna.port) as second:
                    relays.append(second)
                    await second.run()

        nursery.start_soon(relay)
        await until(lambda: bool(relays) and row.begun(relays[0])())
        async with row.puller(cleo, relays[0].meeting.port) as third:
            nursery.start_soon(third.run)
            await until(lambda: len(row.units(third)) == anna.most)
            killed.cancel()
            neighbours = third.meeting.neighbours
            await until(lambda: not len(neighbours))
            given = anna.given
            anna.go_on()
            target = Target("127.0.0.1", anna.port)
            nursery.start_soon(neighbours.keep_dialling, [target])
            await until(lambda: third.task.status.phase == "done")
            nursery.cancel_scope.cancel()
    assert_whole(cleo, row.commit)
    assert anna.given - given <= UNITS - anna.most + 2


async def test_who_want_the_same_at_once_have_it_from_each_other(row: Row) -> None:
    """Four devices that meet each other and one that has it."""
    count = 4
    repos = [row.device(f"device{number}") for number in range(count)]
    async with AsyncExitStack() as stack:
        anna = await stack.enter_async_context(sharing(row.publisher.repo))
        devices: list[Puller] = []
        for repo in repos:
            ports = [anna.port, *(other.meeting.port for other in devices)]
            device = await stack.enter_async_context(row.puller(repo, *ports))
            devices.append(device)
        for device in devices:
            neighbours = device.meeting.neighbours
            await until(lambda met=neighbours: len(met) == count)  # type: ignore[misc]
        blamed: list[int] = []

        async def run(device: Puller) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(device.run)
                neighbours = device.meeting.neighbours
                await until(lambda: isinstance(neighbours.listening, Fetching))
                fetching = fetching_of(device)
            site = fetching.scheduler._parts.site
            blamed.extend(neighbour.faults for neighbour in site.neighbours.values())
            assert site.tally.duplicate <= 2 * UNIT_BYTES

        async with trio.open_nursery() as nursery:
            for device in devices:
                nursery.start_soon(run, device)
        assert len(blamed) == count * count
        assert not any(blamed)
        given = sum(met.server.served_bytes for met in anna.neighbours)
        assert given < 3 * UNITS * UNIT_BYTES
    for repo in repos:
        assert_whole(repo, row.commit)


class Forger(MakesUp):
    """Makes the large object up; everything else is true."""

    def __init__(self, large: ObjectName) -> None:
        super().__init__(units=13)
        self.large = large


async def test_the_author_of_a_false_list_is_blamed_and_not_who_passed_it_on(
    row: Row,
) -> None:
    anna, dora = Forger(row.large), Villain()
    bert, cleo = row.device("bert"), row.device("cleo")
    async with (
        running(anna, row.publisher.repo, row.directory),
        running(dora, row.publisher.repo, row.directory),
        row.puller(bert, anna.port) as second,
        row.puller(cleo, second.meeting.port) as third,
        trio.open_nursery() as nursery,
    ):
        neighbours = second.meeting.neighbours
        async with trio.open_nursery() as pulls:
            pulls.start_soon(second.run)
            await until(row.begun(second))
            pulls.start_soon(third.run)
            await until(lambda: bool(neighbours.banned))
            target = Target("127.0.0.1", dora.port)
            nursery.start_soon(neighbours.keep_dialling, [target])
        assert neighbours.banned == {anna.device: Blame.FALSE_HASHES.value}
        assert not third.meeting.neighbours.banned
        nursery.cancel_scope.cancel()
    for repo in (bert, cleo):
        assert_whole(repo, row.commit)


class Relay(Forger):
    """Passes on what a stranger made up, or says so."""

    def greet(self, hello: m.Hello) -> m.Hello:
        return hello


async def test_nobody_hides_behind_made_up_authors_for_long(row: Row) -> None:
    bert = Relay(row.large)
    cleo = row.device("cleo")
    async with (
        running(bert, row.publisher.repo, row.directory),
        running(Villain(), row.publisher.repo, row.directory) as dora,
        row.puller(cleo, bert.port) as third,
        trio.open_nursery() as nursery,
    ):
        neighbours = third.meeting.neighbours
        async with trio.open_nursery() as pulls:
            pulls.start_soon(third.run)
            await until(lambda: bool(neighbours.banned))
            target = Target("127.0.0.1", dora.port)
            nursery.start_soon(neighbours.keep_dialling, [target])
        nursery.cancel_scope.cancel()
    assert neighbours.banned == {bert.device: Blame.FALSE_HASHES.value}
    # The first time it may have been deceived.
    assert len(bert.told(m.GetHashes)) == 2
    assert_whole(cleo, row.commit)


# -- what a device says of what arrives, message by message ---------------------------


@dataclass(frozen=True, slots=True)
class Watched:
    """Bert in the middle of a pull, and a client that watches the commit.

    Attributes:
        index: the number of the large object in the commit's closure.
        scope: ends the pull.

    """

    row: Row
    bert: Puller
    client: Client
    index: int
    scope: trio.CancelScope

    async def hashes(self) -> m.Hashes:
        large = self.row.large
        return await self.client.ask(
            m.Hashes, lambda n: m.GetHashes(n, large, 0, MAX_PAGE_HASHES)
        )

    async def unit(self, unit: int) -> bytes | None:
        """Return a unit, None if Bert says that he does not have it."""
        name, start = self.row.large, unit * UNIT_BYTES
        answer = await self.client.answer(
            lambda number: m.GetUnit(number, name, start, UNIT_BYTES)
        )
        assert isinstance(answer, m.Unit | m.NotHave)
        return answer.data if isinstance(answer, m.Unit) else None

    def told(self) -> list[int]:
        """Return which units Bert says he has, as he said last."""
        last = self.client.last(m.Units)
        if last is None:
            return []
        (found,) = last.objects
        assert found.number == self.index
        return unpack(found.bitmap)


@asynccontextmanager
async def watched(row: Row, anna: Anna) -> AsyncIterator[Watched]:
    """Yield once all units are there that Anna gives at first."""
    repo = row.device("bert")
    async with (
        running(anna, row.publisher.repo, row.directory),
        row.puller(repo, anna.port) as bert,
        client_of(bert.meeting, row.directory) as client,
        trio.open_nursery() as nursery,
    ):
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await bert.run()

        nursery.start_soon(run)
        await until(lambda: row.begun(bert)() and len(row.units(bert)) == anna.most)
        shared = bert.meeting.sharing.commit(row.commit)
        assert shared is not None
        count = len(shared.closure)
        await client.ask(m.Map, lambda n: m.Watch(n, row.commit, count))
        await client.wait_for(m.Units)
        yield Watched(row, bert, client, shared.index[row.large], scope)
        scope.cancel()


async def test_who_watches_later_is_told_all_units_that_came_before(row: Row) -> None:
    async with watched(row, Anna(most=3)) as watch:
        assert watch.told() == row.units(watch.bert)
        assert len(watch.told()) == 3
        lacking = set(range(UNITS)) - set(watch.told())
        assert await watch.unit(min(lacking)) is None


async def test_units_have_the_hashes_that_their_author_signed(row: Row) -> None:
    anna = Anna(most=3)
    async with watched(row, anna) as watch:
        hashes = await watch.hashes()
        assert hashes.signer == anna.key
        nacl.signing.VerifyKey(hashes.signer).verify(
            statement(row.large, hashes.size, 0, hashes.hashes), hashes.signature
        )
        for unit in watch.told():
            data = await watch.unit(unit)
            assert data is not None
            digest = hashes.hashes[unit * 32 : unit * 32 + 32]
            assert hashlib.sha256(data).digest() == digest


async def test_what_is_whole_now_is_given_as_what_was_whole_before(row: Row) -> None:
    """Units asked for all the while, across the move into the repository."""
    anna = Anna(most=3)
    async with watched(row, anna) as watch:
        before = set(watch.told())
        first = min(before)
        theirs = await watch.hashes()
        anna.go_on()
        while watch.bert.task.status.phase != "done":
            assert await watch.unit(first)
        assert before <= set(watch.told())
        ours = await watch.hashes()
        hello = watch.client.session.connection.peer
        assert hello is not None
        assert (ours.hashes, ours.signer) == (theirs.hashes, hello.signing_key)
        assert await watch.unit(UNITS - 1)


async def test_units_are_withdrawn_when_the_pull_ends_without_them(row: Row) -> None:
    async with watched(row, Anna(most=3)) as watch:
        unit = watch.told()[0]
        watch.scope.cancel()
        await until(lambda: not watch.told())
        assert await watch.unit(unit) is None
