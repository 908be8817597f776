"""What people ask of a running agent, and how they are answered."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from p2p.cli.main import main
from p2p.net.identity import open_identity
from p2p.net.tls import Endpoint, dial
from p2p.trust.policy import Clock
from tests.agent.agents import (
    REFSPEC,
    FileOrigin,
    RunningAgent,
    agent_config,
    neighbour_of,
    run,
    run_origin,
)
from tests.agent.devices import REF, Publisher
from tests.trees import MIB, random_tree

Capture = pytest.CaptureFixture[str]


@dataclass
class Desk:
    """An agent, the file that says where it is, and the command line."""

    agent: RunningAgent
    config: Path
    commit: str
    origin: FileOrigin
    capsys: Capture

    async def run(self, command: str, *arguments: str, status: int = 0) -> str:
        self.capsys.readouterr()
        line = [command, f"--config={self.config}", *arguments]
        assert await trio.to_thread.run_sync(main, line) == status
        said = self.capsys.readouterr()
        return said.out if status == 0 else said.err


def write_config(path: Path, agent: RunningAgent) -> Path:
    config = agent.config
    path.write_text(
        f'repo = "{config.repo}"\nstate = "{config.state}"\n'
        f'socket = "{config.socket}"\n'
    )
    return path


@pytest.fixture
async def desk(tmp_path: Path, capsys: Capture) -> AsyncIterator[Desk]:
    publisher = Publisher.create(tmp_path)
    random_tree(tmp_path / "tree", seed=1, files=10, size=MIB)
    commit = publisher.commit(tmp_path / "tree")
    async with run_origin(publisher.repo) as origin:
        config = agent_config(tmp_path / "device", publisher, origin.url)
        async with run(config) as agent:
            await agent.until_commit(commit)
            path = write_config(tmp_path / "agent.toml", agent)
            yield Desk(agent, path, commit, origin, capsys)


async def test_status_says_what_there_is(desk: Desk) -> None:
    said = await desk.run("status")
    assert desk.commit[:16] in said
    assert f"branch       {REFSPEC}" in said
    assert "confirmed 0 s ago" in said
    assert "deployment   current" in said
    assert "sharing enabled" in said
    assert "origin " in said
    record = json.loads(await desk.run("status", "--json"))
    assert record["branches"][0]["commit"] == desk.commit


async def test_status_says_what_is_wrong(desk: Desk) -> None:
    desk.origin.away = True
    await desk.run("check", REFSPEC)
    await desk.agent.until(lambda s: s["branches"][0]["failures"] > 0)
    said = await desk.run("status")
    assert "OriginError" in said
    assert "503" in said


async def test_peers_says_who_is_met(desk: Desk, tmp_path: Path) -> None:
    assert await desk.run("peers") == "no neighbours\n"
    assert json.loads(await desk.run("peers", "--json")) == {
        "peers": [],
        "banned": [],
        "known": [],
        "members": [],
        "ended": [],
    }
    status = await desk.agent.status()
    config = replace(
        desk.agent.config,
        repo=str(tmp_path / "other/repo"),
        state=str(tmp_path / "other/state"),
        socket=str(tmp_path / "other/agent.sock"),
        deploy=None,
        follow=(replace(desk.agent.config.follow[0], deploy=False),),
        peers=neighbour_of(status),
    )
    async with run(config) as other:
        status = await other.until_commit(desk.commit)
        said = await desk.run("peers")
        assert status["device"][:16] in said
        assert "ostree-p2p/" in said
        assert "given" in said
    with trio.fail_after(10):
        while "a session ended" not in (said := await desk.run("peers")):
            await trio.lowlevel.checkpoint()
    assert "no neighbours" in said
    assert status["device"][:16] in said
    (ended,) = json.loads(await desk.run("peers", "--json"))["ended"]
    assert ended["device"] == status["device"]
    assert ended["reason"]


async def test_who_is_banned_is_said_and_why(desk: Desk, tmp_path: Path) -> None:
    """By the command, and the status tells to ask it."""
    identity = open_identity(str(tmp_path / "villain"))
    endpoint = Endpoint(identity, lambda: Clock(time.time(), trusted=True))
    contact = await dial(endpoint, neighbour_of(await desk.agent.status()))
    async with contact.stream:
        await contact.stream.send_all(b"\x02\x00\x00\x01x")
        while await contact.stream.receive_some():
            pass
    told = json.loads(await desk.run("peers", "--json"))
    (banned,) = told["banned"]
    assert banned["device"] == identity.device_id
    assert "kind 2" in banned["reason"]
    said = await desk.run("peers")
    assert "banned for 10 min" in said
    assert "kind 2" in said
    assert "1 devices; see `p2p peers`" in await desk.run("status")


async def test_sharing_is_switched(desk: Desk) -> None:
    assert await desk.run("disable") == ""
    assert "sharing disabled" in await desk.run("status")
    assert json.loads(await desk.run("enable", "--json"))["enabled"]


async def test_a_branch_is_followed_and_left(desk: Desk) -> None:
    said = await desk.run("unfollow", REFSPEC, status=2)
    assert "a configuration file says so" in said
    assert await desk.run("follow", f"hub:{REF}/other") == ""
    assert f"hub:{REF}/other  nothing yet" in await desk.run("status")
    assert await desk.run("unfollow", f"hub:{REF}/other") == ""
    assert "other" not in (await desk.run("status")).split("update  ")[0]
    said = await desk.run("follow", "nonsense", status=40)
    assert "'nonsense' is not REMOTE:REF" in said


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["peers", "--json"],
        ["enable"],
        ["disable"],
        ["check"],
        ["follow", "a:b"],
        ["unfollow", "a:b"],
    ],
)
def test_without_an_agent_it_says_how_to_start_one(
    tmp_path: Path, capsys: Capture, command: list[str]
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('socket = "none.sock"')
    assert main([command[0], f"--config={config}", *command[1:]]) == 52
    said = capsys.readouterr()
    assert f"no agent is running at {tmp_path}/none.sock" in said.err
    assert "p2p agent" in said.err


def test_the_agent_runs_from_options_alone_and_ends_when_told(tmp_path: Path) -> None:
    publisher = Publisher.create(tmp_path)
    random_tree(tmp_path / "tree", seed=1, files=10, size=MIB)
    commit = publisher.commit(tmp_path / "tree")
    device = tmp_path / "device"
    options = [
        *(f"--repo={device}/repo", f"--state={device}", f"--tree={device}/run"),
        *("--follow", "http://127.0.0.1:9/", REF),
        f"--key={publisher.keys}/signing.pub",
        *("--listen=127.0.0.1:0", "--no-mdns", "--poll=60", "--site=here"),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "p2p", "agent", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stdout is not None
        line = agent.stdout.readline()
        assert line == f"agent ready at {device}/agent.sock\n"
        os.kill(agent.pid, signal.SIGTERM)
        _, errors = agent.communicate(timeout=30)
    assert agent.returncode == 0
    assert "Traceback" not in errors
    assert commit


def test_what_is_followed_must_be_signed(tmp_path: Path, capsys: Capture) -> None:
    line = ["agent", f"--state={tmp_path}", "--follow", "http://x", "os"]
    assert main(line) == 2
    assert "whose signature is demanded?" in capsys.readouterr().err


def test_a_configuration_that_is_wrong_is_named(
    tmp_path: Path, capsys: Capture
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("speed = 7")
    assert main(["agent", f"--config={config}"]) == 2
    assert f"{config}: speed: is not a setting" in capsys.readouterr().err
