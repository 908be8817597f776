"""Limits of a running agent: by command, by files read again, and of old commits."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click.testing
import pytest
import trio

from p2p.agent.config import AgentConfig, parse_config
from p2p.agent.daemon import run_agent
from p2p.agent.limits import LimitTable
from p2p.cli.main import p2p
from p2p.cli.writer import open_configured_writer
from p2p.errors import ConfigError, FormatError
from p2p.ostree.cache import kept_commits
from p2p.ostree.repo import Repo
from tests.agent.agents import RunningAgent, run, run_origin
from tests.agent.devices import Publisher
from tests.agent.test_daemon import Bench
from tests.oracle import walk_objects


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    publisher = Publisher.create(tmp_path)
    async with run_origin(publisher.repo) as origin:
        yield Bench(tmp_path, origin, publisher)


def with_limits(config: AgentConfig, **values: Any) -> AgentConfig:
    table = LimitTable()
    return replace(config, limits=LimitTable(values={**table.values, **values}))


def setting(answer: Any, name: str) -> tuple[str, str]:
    [found] = [each for each in answer["settings"] if each["name"] == name]
    return found["text"], found["source"]


async def test_limits_are_set_and_reset_by_command(bench: Bench) -> None:
    config = bench.config()
    async with run(config) as agent:
        answer = await agent.ask("/limits", {"set": {"upload": "2mbit"}})
        assert setting(answer, "upload") == ("2mbit", "p2p limits set")
        bodies: list[dict[str, Any]] = [
            {},
            {"set": {}},
            {"set": {"upload": 2}},
            {"set": {"upload": "1mbit"}, "until": "noon"},
        ]
        for body in bodies:
            with pytest.raises(FormatError):
                await agent.ask("/limits", body)
        with pytest.raises(ConfigError, match="upload: '2' is no rate"):
            await agent.ask("/limits", {"set": {"upload": "2"}})
    async with run(config) as agent:
        assert setting(await agent.ask("/limits"), "upload")[0] == "2mbit"
        answer = await agent.ask("/limits/reset", {"settings": ["upload"]})
        assert setting(answer, "upload") == ("unlimited", "default")


async def test_people_see_what_holds_and_who_said_so(
    bench: Bench, tmp_path: Path
) -> None:
    async with run(bench.config()) as agent:
        file = tmp_path / "c.toml"
        file.write_text(f'socket = "{agent.config.socket}"\n')

        async def say(*words: str) -> click.testing.Result:
            return await trio.to_thread.run_sync(
                click.testing.CliRunner().invoke, p2p, ["limits", *words]
            )

        done = await say(f"--config={file}", "set", "origin=1mbit", "--for=2h")
        assert done.exit_code == 0, done.output
        shown = (await say(f"--config={file}")).output.splitlines()
        assert [line.split()[0] for line in shown[:7]] == [
            *("upload", "download", "origin", "site-origin"),
            *("dscp", "metered", "cache"),
        ]
        assert shown[2].split()[1] == "1mbit"
        assert "p2p limits set, until " in shown[2]
        for wrong in (["set", "origin"], ["set", "origin=1mbit", "--for=2"]):
            done = await say(f"--config={file}", *wrong)
            assert isinstance(done.exception, ConfigError)


async def run_with_file(
    bench: Bench, file: Path, task_status: trio.TaskStatus[RunningAgent]
) -> None:
    """Run an agent that reads limits in a file again when it is told to."""
    before = bench.config()

    def read() -> AgentConfig:
        return parse_config([(str(file), file.read_text())], before)

    config = read()
    await run_agent(
        config,
        open_writer=open_configured_writer,
        share=True,
        ready=lambda _: task_status.started(RunningAgent(config)),
        environment={},
        reread=read,
    )


async def test_a_file_is_read_again_and_counts_if_it_is_right(
    bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('[limits]\nupload = "1mbit"\n')
    async with trio.open_nursery() as nursery:
        agent = await nursery.start(run_with_file, bench, file)
        assert setting(await agent.ask("/limits"), "upload") == ("1mbit", str(file))
        file.write_text('site = "new"\n[limits]\nupload = "2mbit"\n')
        assert await agent.ask("/reload", {}) == {"restart": ["site"]}
        assert setting(await agent.ask("/limits"), "upload") == ("2mbit", str(file))
        file.write_text('[limits]\nupload = "3"\n')
        with pytest.raises(ConfigError, match=f"{file}: limits.upload: '3' is no rate"):
            await agent.ask("/reload", {})
        assert setting(await agent.ask("/limits"), "upload")[0] == "2mbit"
        nursery.cancel_scope.cancel()


async def until_kept(agent: RunningAgent, fits: Callable[[list[str]], bool]) -> None:
    repo = Repo.open(agent.config.repo)
    with trio.fail_after(30):
        while not fits([kept.commit for kept in kept_commits(repo)]):
            await trio.lowlevel.checkpoint()


async def test_what_is_replaced_is_kept_within_a_quota_that_may_change(
    bench: Bench,
) -> None:
    commits = [str(bench.first)]
    async with run(with_limits(bench.config(), cache=1 << 30)) as agent:
        await agent.until_commit(commits[0])
        for _ in range(2):
            commits.append(str(bench.next_commit()))
            await agent.ask("/check", {})
            await agent.until_commit(commits[-1])
        await until_kept(agent, lambda kept: kept == commits[:2])
        await agent.ask("/limits", {"set": {"cache": "0"}})
        await until_kept(agent, lambda kept: kept == [])
    repo = Path(agent.config.repo)
    assert not walk_objects(repo).problems
    assert not os.path.exists(repo / "refs/heads/p2p/keep")


async def test_nothing_is_kept_by_default(bench: Bench) -> None:
    async with run(bench.config()) as agent:
        await agent.until_commit(bench.first)
        second = bench.next_commit()
        await agent.ask("/check", {})
        await agent.until_commit(second)
    assert kept_commits(Repo.open(agent.config.repo)) == []
