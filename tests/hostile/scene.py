"""A site with villains on it: who pulls, what must hold whatever the villains did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from p2p.agent.neighbours import Neighbours
from p2p.net.target import Target
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from p2p.wire import messages as m
from tests.agent.devices import Publisher, Pulled, puller, sharing
from tests.hostile.villain import Villain, running
from tests.oracle import closure, dangling, walk_objects
from tests.trees import MIB, random_tree

NOWHERE = "http://127.0.0.1:9/"


@dataclass(frozen=True, slots=True)
class Scene:
    """A publisher, one commit of some hundred files, and a device that wants it."""

    directory: Path
    publisher: Publisher
    tree: Path
    commit: Checksum

    @classmethod
    def create(cls, directory: Path, *, files: int = 80) -> Scene:
        publisher = Publisher.create(directory)
        tree = directory / "tree"
        random_tree(tree, seed=1, files=files, size=MIB // 2)
        (tree / "large").write_bytes(bytes(range(256)) * 4096 * 3)
        return cls(directory, publisher, tree, publisher.commit(tree))

    def at(self, directory: Path) -> Scene:
        """Return the same scene with its devices in another directory."""
        return replace(self, directory=directory)

    def device(self, name: str = "device") -> Repo:
        return self.publisher.device(self.directory / name, NOWHERE)

    @asynccontextmanager
    async def villains(self, *villains: Villain) -> AsyncIterator[tuple[int, ...]]:
        """Let villains share what the publisher published; their ports."""
        async with AsyncExitStack() as stack:
            for villain in villains:
                await stack.enter_async_context(
                    running(villain, self.publisher.repo, self.directory)
                )
            yield tuple(villain.port for villain in villains)

    async def pull_beside(
        self, *villains: Villain, seconds: float = 20
    ) -> tuple[Pulled, Neighbours]:
        """Pull from villains and one honest neighbour, all met before it begins."""
        repo = self.device()
        async with (
            self.villains(*villains) as ports,
            sharing(self.publisher.repo) as source,
            puller(repo, peers=(*ports, source.port), origin=False) as device,
        ):
            await until(lambda: len(device.meeting.neighbours) > len(villains))
            pulled = await device.run(seconds)
        assert_whole(repo, self.commit)
        return pulled, device.meeting.neighbours

    async def pull_past(self, villain: Villain) -> tuple[Neighbours, m.Bye]:
        """Pull from a villain until it is banned, then from an honest neighbour.

        Returns what the device knows of the villain, and what that was told.
        """
        neighbours = await self.pull_in_turn(
            villain, Villain(), lambda known: villain.device in known.banned
        )
        return neighbours, villain.told(m.Bye)[0]

    async def pull_in_turn(
        self, first: Villain, second: Villain, when: Callable[[Neighbours], bool]
    ) -> Neighbours:
        """Pull from the first alone until it is time to meet the second too."""
        repo = self.device()
        async with (
            self.villains(first, second) as (port, other),
            puller(repo, peers=(port,), origin=False) as device,
            trio.open_nursery() as nursery,
        ):
            neighbours = device.meeting.neighbours

            async def run() -> None:
                await device.run(20)
                if first.device in neighbours.banned:
                    await first.until_told(m.Bye)
                nursery.cancel_scope.cancel()

            nursery.start_soon(run)
            await until(lambda: when(neighbours))
            nursery.start_soon(neighbours.dial, [Target("127.0.0.1", other)])
        assert_whole(repo, self.commit)
        return neighbours


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.lowlevel.checkpoint()


def assert_whole(repo: Repo, commit: Checksum) -> None:
    """All of the commit is here, and nothing else is that does not verify."""
    assert_clean(repo)
    assert not closure(Path(repo.path), commit).missing
    assert not repo.is_partial(commit)


def assert_clean(repo: Repo) -> None:
    """Every file under objects/ and the staging store has its checksum."""
    report = walk_objects(Path(repo.path))
    assert not report.problems
    assert not dangling(Path(repo.path))
