"""The examples do what they say: real agents run from their very files.

Only what a machine of its own would give is changed: paths, ports, and neighbours that
are named instead of being looked for.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from p2p.agent.config import AgentConfig, load_config, parse_config
from p2p.deploy.target import TreeTarget
from p2p.net.target import Target
from tests.agent.agents import FileOrigin, neighbour_of, run, run_origin
from tests.agent.devices import Publisher, sharing
from tests.require import require
from tests.trees import MIB, random_tree

EXAMPLES = Path(__file__).parents[2] / "examples"
URL = "https://treehub.example/api/v3"
WITH_AGENTS = ("factory", "fleet", "depot")


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[FileOrigin]:
    publisher = Publisher.create(tmp_path)
    async with run_origin(publisher.repo) as origin:
        yield origin


def build(path: Path, ref: str) -> str:
    """Publish a build of a branch; return its commit."""
    tree = path / "tree"
    random_tree(tree, seed=1, files=40, size=MIB)
    command = ["commit", f"--repo={path / 'origin'}", f"--branch={ref}"]
    key = f"--sign-key={path / 'keys' / 'signing.key'}"
    done = subprocess.run(
        [sys.executable, "-m", "p2p", *command, key, tree],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def install(name: str, path: Path, device: str, url: str) -> AgentConfig:
    """Install an example's configuration as it says; return it, but for its paths."""
    etc = path / device / "etc"
    etc.mkdir(parents=True)
    text = (EXAMPLES / name / "agent.toml").read_text().replace(URL, url)
    shutil.copy(path / "keys" / "signing.pub", etc)
    defaults = AgentConfig(
        repo=str(path / device / "repo"),
        state=str(path / device / "state"),
        socket=str(path / device / "agent.sock"),
    )
    config = parse_config([(str(etc / "agent.toml"), text)], defaults)
    return replace(
        config,
        deploy=TreeTarget(str(path / device / "run")),
        listen_host="127.0.0.1",
        listen_port=0,
        mdns=False,
    )


def deployed(path: Path, device: str) -> int:
    """Count the files that run."""
    return sum(f.is_file() for f in (path / device / "run" / "current").rglob("*"))


@pytest.mark.parametrize("name", [*WITH_AGENTS, "bench"])
def test_every_example_is_a_valid_configuration_with_a_word_on_it(name: str) -> None:
    config = load_config(str(EXAMPLES / name / "agent.toml"), os.environ, 0)
    assert config.share
    assert config.follow
    assert all(follow.deploy for follow in config.follow)
    assert (EXAMPLES / name / "README.md").read_text().startswith("# ")


async def test_the_factory_fetches_once_and_deploys_everywhere(
    tmp_path: Path, origin: FileOrigin
) -> None:
    commit = build(tmp_path, "controller/stable")
    first = install("factory", tmp_path, "one", origin.url)
    assert first.site == "plant-4"
    async with run(first, share=first.share) as one:
        status = await one.until_commit(commit)
        fetched = origin.sent_bytes
        second = install("factory", tmp_path, "two", origin.url)
        second = replace(second, peers=neighbour_of(status))
        async with run(second, share=second.share) as two:
            status = await two.until_commit(commit)
    assert status["updates"][0]["peer_objects"] > 40
    assert origin.sent_bytes - fetched < 0.1 * fetched
    assert deployed(tmp_path, "one") == deployed(tmp_path, "two") > 40


async def test_the_fleet_shares_with_its_members_only(
    tmp_path: Path, origin: FileOrigin
) -> None:
    require("openssl")
    commit = build(tmp_path, "vehicle/stable")
    make = str(EXAMPLES / "fleet" / "make-fleet")
    credentials = {"basic_auth": {"user": "fleet", "password": "test"}}

    def member(device: str) -> AgentConfig:
        config = install("fleet", tmp_path, device, origin.url)
        etc = tmp_path / device / "etc"
        files = [str(tmp_path / "authority"), device, str(etc / "fleet")]
        subprocess.run([make, *files], check=True, capture_output=True)
        (etc / "treehub.json").write_text(json.dumps(credentials))
        return config

    first = member("vehicle-1")
    async with run(first, share=first.share) as one:
        status = await one.until_commit(commit)
        assert status["membership"] == "fleet"
        peers = neighbour_of(status)
        second = replace(member("vehicle-2"), peers=peers)
        async with run(second, share=second.share) as two:
            status = await two.until_commit(commit)
        assert status["updates"][0]["peer_objects"] > 40
        stranger = install("depot", tmp_path, "stranger", origin.url)
        stranger = replace(stranger, peers=peers)
        async with run(stranger, share=stranger.share) as three:
            status = await three.until_commit(commit)
        assert status["updates"][0]["peer_objects"] == 0


async def test_the_depot_needs_no_origin(tmp_path: Path, origin: FileOrigin) -> None:
    commit = build(tmp_path, "vehicle/stable")
    origin.away = True
    laptop = origin.repo
    async with sharing(laptop) as served:
        config = install("depot", tmp_path, "vehicle", origin.url)
        config = replace(config, peers=(Target("127.0.0.1", served.port),))
        async with run(config, share=config.share) as vehicle:
            status = await vehicle.until_commit(commit)
    (branch,) = status["branches"]
    assert branch["confirmed"] is None
    assert deployed(tmp_path, "vehicle") > 40


@contextmanager
def program(directory: Path) -> Iterator[dict[str, str]]:
    """An environment in which `p2p` is found."""
    directory.mkdir()
    script = f'#!/bin/sh\nexec {sys.executable} -m p2p "$@"\n'
    (directory / "p2p").write_text(script)
    (directory / "p2p").chmod(0o755)
    root = str(EXAMPLES.parent)
    path = f"{directory}:{os.environ['PATH']}"
    yield os.environ | {"PATH": path, "PYTHONPATH": root}


def test_on_the_bench_a_push_is_deployed(tmp_path: Path) -> None:
    bench = tmp_path / "bench"
    shutil.copytree(EXAMPLES / "bench", bench)
    port = free_port()
    for name in ("run", "push", "agent.toml"):
        text = (bench / name).read_text()
        (bench / name).write_text(text.replace("8084", str(port)))
    tree = tmp_path / "tree"
    random_tree(tree, seed=1, files=20, size=MIB)
    with program(tmp_path / "bin") as environment:
        process = subprocess.Popen(
            [str(bench / "run"), "--no-mdns", "--log-level=warning"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            until_ready(process)
            for release in ("one", "two"):
                (tree / "release").write_text(release)
                push = [str(bench / "push"), str(tree)]
                subprocess.run(push, env=environment, check=True, capture_output=True)
                wait_for(bench / "device" / "run" / "current" / "release", release)
        finally:
            process.terminate()
            process.communicate(timeout=30)


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def until_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("agent ready"):
            return
    raise AssertionError("the agent did not start")


def wait_for(path: Path, content: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.read_text() == content:
            return
    raise AssertionError(f"{path} never held {content!r}")
