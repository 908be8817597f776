"""A site with villains on it: who pulls, what must hold whatever the villains did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
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
    def create(cls, directory: Path, *, files: int = 200) -> Scene:
        publisher = Publisher.create(directory)
        tree = directory / "tree"
        random_tree(tree, seed=1, files=files, size=MIB)
        (tree / "large").write_bytes(bytes(range(256)) * 4096 * 3)
        return cls(directory, publisher, tree, publisher.commit(tree))

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

    async def pull(
        self, repo: Repo, ports: tuple[int, ...], *, seconds: float = 20
    ) -> Pulled:
        """Pull from these neighbours, all met before it begins."""
        async with puller(repo, peers=ports, origin=False) as device:
            with trio.fail_after(10):
                while len(device.meeting.neighbours) < len(ports):
                    await trio.lowlevel.checkpoint()
            return await device.run(seconds)

    async def pull_beside(
        self, *villains: Villain, seconds: float = 20, honest: bool = True
    ) -> Pulled:
        """Pull from villains and, unless said otherwise, from one honest neighbour."""
        repo = self.device()
        async with AsyncExitStack() as stack:
            ports = await stack.enter_async_context(self.villains(*villains))
            if honest:
                source = await stack.enter_async_context(sharing(self.publisher.repo))
                ports += (source.port,)
            pulled = await self.pull(repo, ports, seconds=seconds)
        assert_whole(repo, self.commit)
        return pulled


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
