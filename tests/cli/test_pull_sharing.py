"""What a `p2p pull` gives to neighbours, for how long, and when nothing at all."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from p2p.agent.meeting import Meeting, MeetingOptions, open_meeting
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from p2p.wire import messages as m
from tests.agent.agents import FileOrigin
from tests.agent.devices import REF, Publisher
from tests.pulls import command, environment
from tests.trees import MIB, random_tree
from tests.web.client.servers import Exchange, serving

SITE = "here"


@dataclass
class Scene:
    """A pull from an origin that holds the content back, and a neighbour of it.

    Attributes:
        meeting: the neighbour.
        heard: the commits it was told of.
        met: the pull's session with it came up.
        commit: what is pulled.

    """

    directory: Path
    publisher: Publisher
    meeting: Meeting
    commit: Checksum
    heard: set[m.HeldCommit] = field(default_factory=set)
    met: trio.Event = field(default_factory=trio.Event)
    news: trio.Event = field(default_factory=trio.Event)
    content: trio.Event = field(default_factory=trio.Event)
    url: str = ""

    def hear(self, held: m.HeldCommit) -> None:
        self.heard.add(held)
        self.news.set()
        self.news = trio.Event()

    def holds(self) -> m.Holdings:
        """What the pull says that it has."""
        (puller,) = self.meeting.neighbours
        return puller.holdings

    async def until_told(self, held: m.Held) -> None:
        """Wait until the neighbour is told that so much of the commit is there."""
        while m.HeldCommit(self.commit, held) not in self.holds().commits:
            await self.news.wait()

    @asynccontextmanager
    async def pulling(self, *options: str) -> AsyncIterator[trio.Process]:
        """Pull in a process of its own, content held back until it is met."""
        device = self.publisher.device(self.directory / "device", self.url)
        peer = f"--peer=127.0.0.1:{self.meeting.port}"
        config = self.directory / "config.toml"
        config.touch()
        line = command(
            *("pull", f"--repo={device.path}", f"--config={config}", "--json"),
            *(peer, "--no-mdns", *options, "up", REF),
        )
        # Where nobody meets it there is nothing that could be given away.
        process = await trio.lowlevel.open_process(
            line, stdout=-1, stderr=-1, env=environment()
        )
        try:
            with trio.fail_after(60):
                await self.met.wait()
                yield process
                await process.wait()
        finally:
            process.kill()
            await process.wait()

    async def result(self, process: trio.Process) -> dict[str, object]:
        """What the pull prints when it is complete."""
        assert process.stdout is not None
        printed = b""
        while not printed.endswith(b"\n"):
            more = await process.stdout.receive_some()
            assert more, os.read(process.stderr.fileno(), 4096)  # type: ignore[union-attr]
            printed += more
        answer: dict[str, object] = json.loads(printed)
        return answer


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    publisher = Publisher.create(tmp_path)
    tree = tmp_path / "tree"
    random_tree(tree, seed=3, files=30, size=MIB // 4)
    commit = publisher.commit(tree)
    empty = Repo.init(tmp_path / "neighbour", RepoMode.BARE_USER)
    options = MeetingOptions(state=str(tmp_path / "state"), host="127.0.0.1")
    files = FileOrigin(publisher.repo)
    async with open_meeting(Holdings.published(empty), options) as meeting:
        made = Scene(tmp_path, publisher, meeting, commit)
        meeting.neighbours.subscribe(made.hear)
        meeting.neighbours.on_up = lambda _: made.met.set()

        async def serve(exchange: Exchange) -> None:
            if exchange.asked.path.endswith(".filez"):
                await made.content.wait()
            await files.handle(exchange)

        async with serving(serve) as server:
            made.url = server.url
            yield made


async def test_what_comes_is_shared_while_it_comes_and_for_as_long_as_told(
    scene: Scene,
) -> None:
    async with scene.pulling("--share-for=60") as process:
        await scene.until_told(m.Held.PARTIAL)
        scene.content.set()
        # The result is printed before sharing goes on.
        assert (await scene.result(process))["commit"] == scene.commit
        await scene.until_told(m.Held.COMPLETE)
        assert scene.holds().refs == (m.HeldRef(REF, "", scene.commit),)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0


async def test_sharing_ends_with_the_pull_unless_told_otherwise(scene: Scene) -> None:
    async with scene.pulling() as process:
        await scene.until_told(m.Held.PARTIAL)
        scene.content.set()
    assert process.returncode == 0
    assert {told.held for told in scene.heard} == {m.Held.BEGUN, m.Held.PARTIAL}


@pytest.mark.parametrize(
    "secret",
    ["credentials", "header"],
)
async def test_what_needs_credentials_is_given_to_no_stranger(
    scene: Scene, secret: str
) -> None:
    file = scene.directory / "treehub.json"
    file.write_text('{"basic_auth": {"user": "u", "password": "p"}}')
    option = {
        "credentials": f"--credentials={file}",
        "header": "--http-header=Authorization=Bearer secret",
    }[secret]
    async with scene.pulling(option) as process:
        scene.content.set()
        await scene.result(process)
    assert process.returncode == 0
    assert not scene.heard


async def test_whoever_may_share_protected_content_shares_it(scene: Scene) -> None:
    file = scene.directory / "treehub.json"
    file.write_text('{"basic_auth": {"user": "u", "password": "p"}}')
    (scene.directory / "config.toml").write_text("[share]\nprotected = true\n")
    async with scene.pulling(f"--credentials={file}"):
        await scene.until_told(m.Held.PARTIAL)
        scene.content.set()


async def test_with_no_share_nothing_is_given(scene: Scene) -> None:
    async with scene.pulling("--no-share") as process:
        scene.content.set()
        await scene.result(process)
    assert process.returncode == 0
    assert not scene.heard
