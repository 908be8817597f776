"""What `p2p doctor` finds of followed branches, with real origins on loopback."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from p2p.agent.config import AgentConfig, Follow
from p2p.agent.doctor import branches
from p2p.agent.doctor.branches import check_branches
from p2p.agent.doctor.finding import Finding, Level
from p2p.agent.remotes import ensure_remote
from p2p.ostree.config import RepoMode
from p2p.ostree.repo import Repo
from tests.agent.agents import agent_config, run_origin
from tests.agent.devices import Publisher
from tests.web.client.servers import Exchange, Handler, answer, make_tls, serving


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher.create(tmp_path)


@pytest.fixture
def device(tmp_path: Path, publisher: Publisher) -> AgentConfig:
    return agent_config(tmp_path / "device", publisher, "http://127.0.0.1:9/")


def follow_at(config: AgentConfig, url: str) -> Follow:
    return replace(config.follow[0], url=url)


async def origin_at(config: AgentConfig, url: str) -> Finding:
    _, finding = await check_branches(config, None, [follow_at(config, url)])
    assert finding.check == "origin hub"
    return finding


def is_bad(finding: Finding, said: str, remedy: str) -> None:
    assert finding.level is Level.FAIL
    assert said in finding.message
    assert remedy in finding.remedy


async def test_a_remote_that_is_well_described_and_answers_is_well(
    publisher: Publisher, device: AgentConfig
) -> None:
    async with run_origin(publisher.repo) as origin:
        follow = follow_at(device, origin.url)
        repo = Repo.init(device.repo, RepoMode.BARE_USER)
        # Before the agent has added the remote, and after.
        for _ in range(2):
            remote, answers = await check_branches(device, repo, [follow, follow])
            assert remote.level is answers.level is Level.OK
            assert "ed25519 signatures are demanded" in remote.message
            assert answers.message == f"{origin.url} answers"
            ensure_remote(repo, follow)


async def test_how_far_it_came_to_an_origin_is_told(
    tmp_path: Path, device: AgentConfig, publisher: Publisher
) -> None:
    finding = await origin_at(device, "http://127.0.0.1:9/")
    is_bad(finding, "not reached: ", "network")
    cases: list[tuple[Handler, str, str]] = [
        (answer(401), "credentials do not do: ", "credentials.zip"),
        (answer(404), "does not answer as an origin: ", "no OSTree repository at"),
        (answer(200, b"<html>"), "does not answer as an origin: ", "log-in page"),
    ]
    for handler, said, remedy in cases:
        async with serving(handler) as server:
            is_bad(await origin_at(device, server.url), said, remedy)
    async with serving(answer(200), tls=make_tls(tmp_path / "tls").context) as server:
        finding = await origin_at(device, server.url)
        is_bad(finding, "TLS was not agreed on: ", "tls-ca-path")


async def test_credentials_that_cannot_be_read_are_told(
    tmp_path: Path, device: AgentConfig
) -> None:
    missing = str(tmp_path / "none.zip")
    config = replace(device, credentials={"hub": missing})
    is_bad(await origin_at(config, "http://127.0.0.1:9/"), missing, "Correct")
    file = tmp_path / "treehub.json"
    file.write_text("no JSON")
    config = replace(device, credentials={"hub": str(file)})
    is_bad(
        await origin_at(config, "http://127.0.0.1:9/"), "treehub.json", "treehub.json"
    )


async def test_an_origin_that_says_nothing_is_given_up(
    device: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = trio.Event()

    async def silent(_: Exchange) -> None:
        asked.set()
        await trio.sleep_forever()

    monkeypatch.setattr(branches, "ORIGIN_SECONDS", 0.2)
    async with serving(silent) as server:
        finding = await origin_at(device, server.url)
    assert asked.is_set()
    is_bad(finding, "no answer within 0.2 seconds", "neighbours")


async def test_remotes_that_are_not_there_or_not_as_described_are_told(
    device: AgentConfig, publisher: Publisher
) -> None:
    bare = Follow(remote="other", ref="os")
    (finding,) = await check_branches(device, None, [bare])
    is_bad(finding, "nothing describes it", "Give `url` and `key`")
    repo = Repo.init(device.repo, RepoMode.BARE_USER)
    (finding,) = await check_branches(device, repo, [bare])
    is_bad(finding, "there is no remote 'other'", "p2p remote add")
    ensure_remote(repo, device.follow[0])
    (finding,) = await check_branches(
        device, repo, [follow_at(device, "http://127.0.0.1:10/")]
    )
    is_bad(finding, "its url is", "p2p remote delete")


async def test_a_key_must_be_there_and_one(tmp_path: Path, device: AgentConfig) -> None:
    for name, content in (("none", None), ("empty", ""), ("bad", "no key\n")):
        key = tmp_path / name
        if content is not None:
            key.write_text(content)
        follow = replace(device.follow[0], key=str(key))
        (finding,) = await check_branches(device, None, [follow])
        is_bad(finding, str(key), "")


async def test_a_remote_that_demands_no_signature_is_a_warning(
    device: AgentConfig,
) -> None:
    repo = Repo.init(device.repo, RepoMode.BARE_USER)
    repo.keys.set('remote "free"', "url", "http://127.0.0.1:9/")
    repo.keys.set('remote "free"', "gpg-verify", "false")
    repo.save_config()
    remote, _ = await check_branches(
        device, Repo.open(repo.path), [Follow(remote="free", ref="os")]
    )
    assert remote.level is Level.WARN
    assert "p2p remote delete free" in remote.remedy
