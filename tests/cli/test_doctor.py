"""`p2p doctor` as a whole, with a running agent and without."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from p2p.agent.config import AgentConfig
from p2p.agent.config_text import config_table, to_toml
from p2p.cli.main import main
from p2p.deploy.target import SysrootTarget
from p2p.ostree.config import RepoMode
from p2p.ostree.repo import Repo
from p2p.web.server.exchange import Request, Response, as_json
from p2p.web.server.http1 import Server
from p2p.web.server.listen import open_listeners
from tests.agent.agents import FileOrigin, agent_config, run, run_origin
from tests.agent.devices import Publisher
from tests.require import require
from tests.trees import MIB, random_tree

Capture = pytest.CaptureFixture[str]


async def ask(config: AgentConfig, path: Path, capsys: Capture) -> tuple[int, Any]:
    """The exit status of `p2p doctor` and its findings by name of the check."""
    path.write_text(to_toml(config_table(config)))
    capsys.readouterr()
    line = ["doctor", f"--config={path}", "--json"]
    status = await trio.to_thread.run_sync(main, line)
    record = json.loads(capsys.readouterr().out)
    findings = {each["check"]: each for each in record["findings"]}
    assert sum(record["counts"].values()) == len(record["findings"])
    for each in record["findings"]:
        assert bool(each["remedy"]) is (each["level"] != "ok")
    return status, findings


def failures(findings: Any) -> list[str]:
    return [name for name, each in findings.items() if each["level"] == "fail"]


@asynccontextmanager
async def site(tmp_path: Path) -> AsyncIterator[tuple[FileOrigin, AgentConfig, str]]:
    publisher = Publisher.create(tmp_path)
    random_tree(tmp_path / "tree", seed=1, files=10, size=MIB)
    commit = publisher.commit(tmp_path / "tree")
    async with run_origin(publisher.repo) as origin:
        yield origin, agent_config(tmp_path / "device", publisher, origin.url), commit


async def test_a_device_is_well_before_and_while_its_agent_runs(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "agent.toml"
    async with site(tmp_path) as (_, config, commit):
        status, findings = await ask(config, path, capsys)
        assert (status, failures(findings)) == (0, [])
        assert "no agent is running" in findings["agent"]["message"]
        assert "will be made" in findings["repository"]["message"]
        assert "before there is a repository" in findings["deploy"]["message"]
        assert not Path(config.state).exists()
        async with run(config) as agent:
            await agent.until_commit(commit)
            status, findings = await ask(config, path, capsys)
        assert (status, failures(findings)) == (0, [])
        assert findings["agent"]["message"] == "running, 0 neighbours, sharing"
        assert findings["branch hub:os"]["message"] == f"at {commit[:16]}"
        assert "the agent listens on TCP port" in findings["port"]["message"]
        assert "1 deployed" in findings["deploy"]["message"]
        assert "signatures are demanded" in findings["remote hub"]["message"]


async def test_what_fails_is_named_and_told_by_the_exit_status(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "agent.toml"
    async with site(tmp_path) as (origin, config, _commit):
        origin.away = True
        async with run(config) as agent:
            await agent.until(lambda s: s["branches"][0]["failures"] > 0)
            status, findings = await ask(config, path, capsys)
    assert status == 1
    assert failures(findings) == ["branch hub:os", "origin hub"]
    assert "503" in findings["origin hub"]["message"]


async def test_what_was_followed_by_command_is_looked_at_too(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "agent.toml"
    async with site(tmp_path) as (_, config, commit):
        async with run(config) as agent:
            await agent.until_commit(commit)
        later = replace(config, follow=(), deploy=None, mdns=True, interfaces=("lo",))
        async with run(replace(later, mdns=False)) as agent:
            await agent.ask("/follow", {"refspec": "hub:os"})
        status, findings = await ask(later, path, capsys)
        assert (status, failures(findings)) == (0, [])
        assert "answers" in findings["origin hub"]["message"]
        assert findings["interfaces"]["message"].startswith("lo (")
        assert "5353" in findings["mdns"]["message"]
        Path(config.state, "agent.json").write_text("damaged")
        status, findings = await ask(later, path, capsys)
        assert findings["memory"]["level"] == "warn"
        assert "none is followed" in findings["branches"]["message"]


async def test_a_wrong_configuration_fails_and_the_rest_is_looked_at(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTREE_REPO", str(tmp_path / "repo"))
    path = tmp_path / "agent.toml"
    path.write_text("speed = 7")
    line = ["doctor", f"--config={path}"]
    assert await trio.to_thread.run_sync(main, line) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"fail  configuration  {path}: speed: is not a setting")
    assert said[1].strip() == "-> Correct the named setting; nothing was changed."
    assert any(line.startswith(("ok    clock", "warn  clock")) for line in said)


async def test_a_bootable_system_is_looked_at_with_its_ostree(
    tmp_path: Path, capsys: Capture
) -> None:
    require("ostree")
    sysroot = tmp_path / "sysroot"
    repo = Repo.init(sysroot / "ostree/repo", RepoMode.BARE_USER)
    deployment = sysroot / f"ostree/deploy/os/deploy/{'a' * 64}.0"
    deployment.mkdir(parents=True)
    entries = sysroot / "boot/loader/entries"
    entries.mkdir(parents=True)
    entry = entries / "ostree-1-os.conf"
    place = deployment.relative_to(sysroot)
    entry.write_text(f"version 1\noptions ostree=/{place}\n")
    origin = Path(f"{deployment}.origin")
    origin.write_text("[origin]\ncontainer-image-reference=ostree-image:x\n")
    config = AgentConfig(
        repo=repo.path,
        state=str(tmp_path / "state"),
        socket=str(tmp_path / "agent.sock"),
        listen_host="127.0.0.1",
        listen_port=0,
        mdns=False,
        deploy=SysrootTarget(str(sysroot)),
    )
    path = tmp_path / "agent.toml"
    status, findings = await ask(config, path, capsys)
    assert (status, failures(findings)) == (1, ["system origin"])
    assert "ostree-image:x" in findings["system origin"]["message"]
    assert "1 deployed" in findings["deploy"]["message"]
    assert findings["ostree"]["level"] == "ok"
    entry.write_text("version 1\noptions ostree=/nowhere\n")
    status, findings = await ask(config, path, capsys)
    assert (status, failures(findings)) == (1, ["deploy", "system origin"])


async def test_an_agent_that_answers_with_something_else_is_told(
    tmp_path: Path, capsys: Capture
) -> None:
    path, place = tmp_path / "agent.toml", str(tmp_path / "agent.sock")
    config = AgentConfig(
        repo=str(tmp_path / "repo"),
        state=str(tmp_path),
        socket=place,
        listen_port=0,
        mdns=False,
    )
    answers = [
        (200, {"version": "0"}),
        (409, {"error": "RepositoryError", "message": "it is gone", "hint": "Look."}),
    ]

    async def answer(_: Request) -> Response:
        return as_json(*answers[0])

    async with trio.open_nursery() as nursery:
        await nursery.start(Server(answer).serve, open_listeners(place))
        for said in ("not of this version", "it is gone"):
            status, findings = await ask(config, path, capsys)
            assert status == 1
            assert findings["agent"]["level"] == "fail"
            assert said in findings["agent"]["message"]
            answers.pop(0)
        nursery.cancel_scope.cancel()
