"""A pull is killed, and the store is cleaned around it; nothing is lost or in the way.

The origin is a thin link, so that a pull lasts for some seconds, and remembers in which
order it was asked for what.
"""

import fcntl
import itertools
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
import trio

from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from p2p.web.server.pace import Pace
from tests.agent.agents import FileOrigin, run_origin
from tests.agent.devices import REF, Publisher
from tests.compat.treehub_process import treehub_process
from tests.mounts import mount_loop_ext4
from tests.oracle import Ostree, closure, dangling, walk_objects
from tests.require import require
from tests.trees import MIB, os_tree, random_tree

STAGE = "extensions/p2p/stage"
KILLS = 20
# struct flock, and what asks about a lock without taking it (fcntl(2)).
FLOCK = struct.Struct("hhqqi4x")
F_OFD_GETLK = 36
# The longest that somebody else's command may take while we pull, of which nearly all
# is its own start; it used to wait for minutes where a pull held the lock.
PATIENCE_SECONDS = 10.0


@dataclass
class Link:
    """A thin link to an origin with one commit."""

    origin: FileOrigin
    publisher: Publisher
    commit: Checksum

    @property
    def objects(self) -> int:
        return sum(1 for _ in Path(self.origin.repo.path, "objects").rglob("*.*"))

    def assert_asked_once(self) -> None:
        asked = Counter(p for p in self.origin.served if p.startswith("/objects"))
        assert not [path for path, count in asked.items() if count > 1]


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[Link]:
    publisher = Publisher.create(tmp_path)
    random_tree(tmp_path / "tree", seed=3, files=500, size=3 * MIB)
    commit = publisher.commit(tmp_path / "tree")
    async with run_origin(publisher.repo) as origin:
        origin.pace = Pace(1.5e6)
        yield Link(origin, publisher, commit)


def staged(repo: Repo) -> set[str]:
    """What the staging store holds, by path as the origin names it."""
    store = Path(repo.path, STAGE, "objects")
    found = set()
    for directory, _, names in os.walk(store):
        for name in names:
            stem, _, kind = name.partition(".")
            kind = "filez" if kind == "file" else kind
            found.add(f"/objects/{Path(directory).name}/{stem}.{kind}")
    return found


def pull_command(repo: Repo, *options: str) -> list[str]:
    command = [sys.executable, "-m", "p2p", "pull", f"--repo={repo.path}", "up", REF]
    return [*command, "--no-mdns", *options]


async def pull(repo: Repo, *options: str) -> None:
    """Pull to the end."""
    done = await trio.run_process(
        pull_command(repo, *options), capture_stderr=True, capture_stdout=True
    )
    assert done.returncode == 0


async def kill_at(repo: Repo, count: int, *options: str) -> bool:
    """Pull, and kill it once so many objects are staged; False if it ended before."""
    process = await trio.lowlevel.open_process(
        pull_command(repo, *options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while len(staged(repo)) < count and process.poll() is None:
        await trio.lowlevel.checkpoint()
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    return await process.wait() == -signal.SIGKILL


def assert_sound(repo: Repo) -> None:
    """Every file is what its name says, and no ref or commit lacks anything."""
    for path in (Path(repo.path), Path(repo.path, STAGE)):
        assert not walk_objects(path).problems
    assert not dangling(Path(repo.path))


async def test_killed_twenty_times_a_pull_loses_nothing_and_fetches_nothing_twice(
    tmp_path: Path, link: Link
) -> None:
    random = Random(7)
    repo = link.publisher.device(tmp_path / "device", link.origin.url)
    writers = itertools.cycle(["--writer=thread", "--writer=process"])
    moments = sorted(random.sample(range(1, link.objects - 10), KILLS))
    kept: set[str] = set()
    killed = 0
    for moment in moments:
        asked = len(link.origin.served)
        killed += await kill_at(repo, moment, next(writers))
        again = kept.intersection(link.origin.served[asked:])
        assert not {path for path in again if not path.endswith(".commitmeta")}
        assert_sound(repo)
        kept = staged(repo)
    assert killed > KILLS // 2
    asked = len(link.origin.served)
    await pull(repo)
    again = kept.intersection(link.origin.served[asked:])
    assert not {path for path in again if not path.endswith(".commitmeta")}
    assert repo.resolve(f"up:{REF}") == link.commit
    assert_sound(repo)
    assert not closure(Path(repo.path), link.commit).missing


async def watch_lock(repo: Repo, origin: FileOrigin, seen: list[int]) -> None:
    """Note how much was served whenever the repository's lock is found held.

    It is asked for, never taken.
    """
    lock = os.open(Path(repo.path, ".lock"), os.O_RDWR)
    try:
        while True:
            await trio.sleep(0.002)
            if not is_free(lock):
                seen.append(sum(path.startswith("/objects") for path in origin.served))
    finally:
        os.close(lock)


def is_free(fd: int) -> bool:
    """Whether nobody holds a lock, shared or not, on an open file."""
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_ = FLOCK.unpack(fcntl.fcntl(fd, F_OFD_GETLK, asked))
    return bool(kind == fcntl.F_UNLCK)


async def test_a_pull_holds_the_lock_only_after_all_was_fetched(
    tmp_path: Path, link: Link
) -> None:
    repo = link.publisher.device(tmp_path / "device", link.origin.url)
    Path(repo.path, ".lock").touch()
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_lock, repo, link.origin, seen)
        await pull(repo)
        nursery.cancel_scope.cancel()
    fetched = sum(path.startswith("/objects") for path in link.origin.served)
    assert fetched >= link.objects
    assert set(seen) == {fetched}


@dataclass
class Loop:
    """A command that is run again and again; `seconds` has how long each run took."""

    command: Sequence[str]
    pause: float = 0.0
    seconds: list[float] = field(default_factory=list)
    thrice: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            # Never killed: `ostree admin deploy` freezes the filesystem for a moment.
            with trio.CancelScope(shield=True):
                await trio.run_process(
                    self.command, capture_stdout=True, capture_stderr=True
                )
            self.seconds.append(time.monotonic() - began)
            if len(self.seconds) == 3:
                self.thrice.set()
            await trio.sleep(self.pause)

    def check(self) -> None:
        assert self.thrice.is_set()
        assert max(self.seconds) < PATIENCE_SECONDS


class Gate(Pace):
    """A link that lets the first objects through, and others after the loops ran."""

    def __init__(self, first: int) -> None:
        super().__init__(1e9)
        self._left = first
        self.loops: tuple[Loop, ...] = ()

    async def wait(self, size: int) -> None:
        await super().wait(size)
        self._left -= 1
        if self._left <= 0:
            for loop in self.loops:
                await loop.thrice.wait()


async def test_pruning_around_a_pull_costs_nothing(tmp_path: Path, link: Link) -> None:
    require("ostree")
    repo = link.publisher.device(tmp_path / "device", link.origin.url)
    loop = Loop(["ostree", "prune", f"--repo={repo.path}", "--refs-only"])
    link.origin.pace = gate = Gate(link.objects // 2)
    gate.loops = (loop,)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        with trio.fail_after(60):
            await pull(repo)
        nursery.cancel_scope.cancel()
    loop.check()
    link.assert_asked_once()
    assert_sound(repo)
    assert not closure(Path(repo.path), link.commit).missing


@pytest.mark.root
async def test_deploying_and_cleaning_up_around_a_pull_cost_nothing_and_never_wait(
    tmp_path: Path, link: Link
) -> None:
    require("ostree", "loop", "mkfs.ext4")
    link.origin.pace = gate = Gate(link.objects // 2)
    with trio.fail_after(90):
        await around_a_system(
            tmp_path, link.publisher, link.origin.url, link.commit, gate=gate
        )
    link.assert_asked_once()


@pytest.mark.long
@pytest.mark.root
@pytest.mark.timeout(2400)
async def test_a_pull_of_twenty_minutes_never_holds_anybody_up(
    tmp_path: Path, link: Link
) -> None:
    require("ostree", "loop", "mkfs.ext4")
    random_tree(tmp_path / "tree" / "more", seed=4, files=1000, size=60 * MIB)
    commit = link.publisher.commit(tmp_path / "tree")
    files = Path(link.origin.repo.path).rglob("*.filez")
    bits = 8 * sum(path.stat().st_size for path in files)
    rate = f"--rate={bits // 1250}bit"
    with treehub_process(Path(link.origin.repo.path), rate) as hub:
        began = time.monotonic()
        url = f"http://127.0.0.1:{hub.port}"
        await around_a_system(tmp_path, link.publisher, url, commit)
    assert time.monotonic() - began > 1200


async def around_a_system(
    tmp_path: Path,
    publisher: Publisher,
    url: str,
    commit: Checksum,
    gate: Gate | None = None,
) -> None:
    """Pull into a sysroot's repository while others deploy and clean up in loops."""
    with mount_loop_ext4(tmp_path, 256 * MIB) as root:
        stock = Ostree(root / "ostree/repo")
        stock.admin("init-fs", "--modern", root)
        stock.admin("os-init", "tree", f"--sysroot={root}")
        os_tree(tmp_path / "os", version="1")
        stock.commit(tmp_path / "os", "main")
        repo = publisher.device(Path(stock.repo), url, RepoMode.BARE)
        sysroot = f"--sysroot={root}"
        pause = 2.0 if gate is None else 0.0
        loops = (
            Loop(["ostree", "admin", "cleanup", sysroot], pause),
            Loop(["ostree", "admin", "deploy", "--os=tree", sysroot, "main"], pause),
        )
        if gate is not None:
            gate.loops = loops
        async with trio.open_nursery() as nursery:
            for loop in loops:
                nursery.start_soon(loop.run)
            await pull(repo, "--writer=process")
            nursery.cancel_scope.cancel()
        for loop in loops:
            loop.check()
        assert_sound(repo)
        assert not closure(Path(repo.path), commit).missing
        assert stock.run("fsck")
