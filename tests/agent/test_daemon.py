"""A running agent: what it does by itself, and what it does when told."""

import json
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from p2p.agent.config import AgentConfig, Fleet
from p2p.agent.meeting import MeetingOptions, open_meeting
from p2p.agent.remotes import ensure_remote
from p2p.agent.state import StateFile
from p2p.errors import AgentError, ConfigError, DeployError, FormatError
from p2p.net.target import Target
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from p2p.web.server.pace import Pace
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
from tests.oracle import walk_objects
from tests.trees import MIB, change_files, random_tree


class Bench:
    """A publisher with a tree, and its origin."""

    def __init__(self, path: Path, origin: FileOrigin, publisher: Publisher) -> None:
        self.path = path
        self.origin = origin
        self.publisher = publisher
        self.tree = path / "tree"
        random_tree(self.tree, seed=1, files=60, size=MIB)
        self.time = 1_700_000_000
        self.first = self.commit()

    def commit(self) -> Checksum:
        self.time += 60
        (self.tree / "release").write_text(f"{self.time}\n")
        return self.publisher.commit(self.tree, timestamp=self.time)

    def next_commit(self) -> Checksum:
        change_files(self.tree, seed=self.time, files=5)
        return self.commit()

    def config(self, name: str = "device", **settings: Any) -> AgentConfig:
        return agent_config(
            self.path / name, self.publisher, self.origin.url, **settings
        )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    publisher = Publisher.create(tmp_path)
    async with run_origin(publisher.repo) as origin:
        yield Bench(tmp_path, origin, publisher)


def deployed(config: AgentConfig) -> str:
    return Path(config.repo, "../run/current/release").read_text()


async def test_a_followed_branch_is_pulled_and_deployed_and_so_is_its_next_commit(
    bench: Bench,
) -> None:
    config = bench.config()
    async with run(config) as agent:
        status = await agent.until_commit(bench.first)
        assert deployed(config) == f"{bench.time}\n"
        (branch,) = status["branches"]
        assert branch["refspec"] == REFSPEC
        assert branch["confirmed"] == branch["last"]["time"]
        assert branch["last"]["origin_objects"] > 60
        assert 3000 < branch["next_check_seconds"] < 4000
        assert [d["state"] for d in status["deployments"]] == ["current"]
        second = bench.next_commit()
        await agent.ask("/check", {})
        status = await agent.until_commit(second)
        assert deployed(config) == f"{bench.time}\n"
        assert [d["commit"] for d in status["deployments"]] == [second, bench.first]
        (first_update, second_update) = status["updates"]
        assert first_update["commit"] == bench.first == second_update["previous"]
        assert second_update["origin_objects"] < 15
    assert not walk_objects(Path(config.repo)).problems


async def test_a_neighbour_gives_the_objects_and_the_news(bench: Bench) -> None:
    async with run(bench.config("one")) as one:
        status = await one.until_commit(bench.first)
        bench.origin.served.clear()
        config = bench.config("two", peers=neighbour_of(status))
        async with run(config) as two:
            status = await two.until_commit(bench.first)
            assert status["neighbours"] == 1
            (update,) = status["updates"]
            assert update["peer_objects"] > 60
            assert not [path for path in bench.origin.served if ".filez" in path]
            second = bench.next_commit()
            # Only one of them is told, and polls are an hour apart.
            await one.ask("/check", {"refspec": REFSPEC})
            await two.until_commit(second)
            (peer,) = (await two.ask("/peers"))["peers"]
            assert {"ref": REF, "commit": second} in peer["refs"]
            assert peer["taken_bytes"] > 0
            (taker,) = (await one.ask("/peers"))["peers"]
            assert taker["given_bytes"] > 0


async def test_three_cold_devices_share_the_work_of_a_thin_link(bench: Bench) -> None:
    random_tree(bench.tree / "more", seed=2, files=400, size=4 * MIB)
    commit = bench.commit()
    filez = Path(bench.publisher.repo.path).rglob("*.filez")
    copy = sum(path.stat().st_size for path in filez)
    bench.origin.pace = Pace(copy / 2)
    agents: list[RunningAgent] = []
    peers: tuple[Target, ...] = ()
    async with AsyncExitStack() as stack:
        for name in ("one", "two", "three"):
            config = bench.config(name, peers=peers)
            agent = await stack.enter_async_context(run(replace(config, follow=())))
            status = await agent.until(lambda s: s["port"] is not None)
            peers += neighbour_of(status)
            ensure_remote(Repo.open(config.repo), config.follow[0])
            agents.append(agent)
        for agent in agents:
            await agent.until(lambda s: s["neighbours"] == 2)
        for agent in agents:
            await agent.ask("/follow", {"refspec": REFSPEC})
        for agent in agents:
            await agent.until_commit(commit)
    assert bench.origin.sent_bytes < 1.3 * copy


async def test_the_neighbours_head_counts_while_the_origin_is_away(
    bench: Bench,
) -> None:
    async with run(bench.config("one")) as one:
        status = await one.until_commit(bench.first)
        bench.origin.away = True
        config = bench.config("two", peers=neighbour_of(status))
        async with run(config) as two:
            status = await two.until_commit(bench.first)
            assert status["branches"][0]["confirmed"] is None
            assert status["updates"][0]["origin_objects"] == 0


async def test_for_too_long_without_its_origin_it_believes_no_neighbour(
    bench: Bench,
) -> None:
    """A withdrawn build could be held out to a device that is kept from its origin."""
    async with run(bench.config("one")) as one:
        status = await one.until_commit(bench.first)
        bench.origin.away = True
        config = bench.config("two", peers=neighbour_of(status), max_offline_age=3600.0)
        async with run(config) as two:
            status = await two.until(lambda s: s["branches"][0]["last"])
            (branch,) = status["branches"]
            assert branch["last"]["error"] == "StaleError"
            assert branch["stale"]
            assert branch["commit"] is None
            bench.origin.away = False
            await two.ask("/check", {"refspec": REFSPEC})
            status = await two.until_commit(bench.first)
            assert not status["branches"][0]["stale"]


async def test_for_a_while_without_its_origin_it_believes_neighbours(
    bench: Bench,
) -> None:
    async with run(bench.config("one")) as one:
        status = await one.until_commit(bench.first)
        bench.origin.away = True
        config = bench.config("two", peers=neighbour_of(status), max_offline_age=3600.0)
        state = StateFile(config.state)
        state.state.confirmed[REFSPEC] = time.time() - 1800
        state.save()
        async with run(config) as two:
            status = await two.until_commit(bench.first)
            assert not status["branches"][0]["last"]["confirmed"]


async def test_that_nothing_is_new_is_remembered_as_a_confirmation(
    bench: Bench,
) -> None:
    async with run(bench.config()) as agent:
        await agent.until_commit(bench.first)
    state = StateFile(bench.config().state)
    state.state.confirmed[REFSPEC] -= 86400
    state.save()
    began = time.time()
    async with run(bench.config()) as agent:
        await agent.until(lambda s: s["branches"][0]["last"])
    assert StateFile(bench.config().state).state.confirmed[REFSPEC] >= began


async def test_disabled_it_meets_nobody_and_updates_come_from_the_origin(
    bench: Bench,
) -> None:
    config = bench.config()
    async with run(config) as agent:
        status = await agent.until(lambda s: s["port"] is not None)
        assert status["enabled"]
        status = await agent.ask("/disable", {})
        assert not status["enabled"]
        status = await agent.until(lambda s: s["port"] is None)
        assert (await agent.ask("/peers"))["peers"] == []
        await agent.until_commit(bench.first)
    async with run(config) as agent:
        status = await agent.status()
        assert not status["enabled"]
        await agent.ask("/enable", {})
        await agent.until(lambda s: s["enabled"] and s["port"] is not None)


async def test_nothing_is_shared_before_somebody_says_so(bench: Bench) -> None:
    async with run(bench.config(), share=False) as agent:
        status = await agent.until_commit(bench.first)
        assert (status["enabled"], status["port"]) == (False, None)


async def test_branches_are_followed_and_left_by_command(bench: Bench) -> None:
    configured = bench.config()
    async with run(configured) as agent:
        await agent.until_commit(bench.first)
        for command in ("/follow", "/unfollow"):
            with pytest.raises(ConfigError, match="a configuration file says so"):
                await agent.ask(command, {"refspec": REFSPEC})
    config = replace(configured, follow=())
    async with run(config) as agent:
        assert (await agent.status())["branches"] == []
        with pytest.raises(ConfigError, match="there is no remote 'other'"):
            await agent.ask("/follow", {"refspec": "other:os"})
        status = await agent.ask("/follow", {"refspec": REFSPEC, "deploy": True})
        assert [b["refspec"] for b in status["branches"]] == [REFSPEC]
        second = bench.next_commit()
        await agent.ask("/check", {"refspec": REFSPEC})
        await agent.until_commit(second)
    async with run(config) as agent:
        await agent.until_commit(second)
        status = await agent.ask("/unfollow", {"refspec": REFSPEC})
        assert status["branches"] == []
        for command in ("/unfollow", "/check"):
            with pytest.raises(ConfigError, match="is not followed"):
                await agent.ask(command, {"refspec": REFSPEC})


async def test_an_origin_that_is_away_is_said_and_tried_again(bench: Bench) -> None:
    bench.origin.away = True
    async with run(bench.config(), share=False) as agent:
        status = await agent.until(lambda s: s["branches"][0]["failures"] > 0)
        (branch,) = status["branches"]
        assert branch["last"]["error"] == "OriginError"
        assert "503" in branch["last"]["message"]
        assert branch["last"]["hint"]
        assert branch["next_check_seconds"] < 10
        bench.origin.away = False
        await agent.ask("/check", {})
        status = await agent.until_commit(bench.first)
        assert status["branches"][0]["failures"] == 0


async def test_what_a_person_went_back_from_is_not_deployed_again_by_itself(
    bench: Bench,
) -> None:
    config = bench.config()
    async with run(config) as agent:
        await agent.until_commit(bench.first)
        with pytest.raises(DeployError):
            await agent.ask("/rollback", {})
        second = bench.next_commit()
        await agent.ask("/check", {})
        await agent.until_commit(second)
        back = await agent.ask("/rollback", {})
        assert back["commit"] == bench.first
        checked = (await agent.status())["branches"][0]["last"]["time"]
        await agent.ask("/check", {})
        status = await agent.until(
            lambda s: s["branches"][0]["last"]["time"] != checked
        )
        assert status["deployments"][0]["commit"] == bench.first
        again = await agent.ask("/deploy", {"refspec": REFSPEC})
        assert again["commit"] == second
    async with run(config) as agent:
        await agent.until_commit(second)
        third = bench.next_commit()
        await agent.ask("/check", {})
        status = await agent.until_commit(third)
        assert status["deployments"][0]["commit"] == third


async def test_without_a_place_to_deploy_to_it_says_so(bench: Bench) -> None:
    config = bench.config(deploy=None)
    config = replace(config, follow=(replace(config.follow[0], deploy=False),))
    async with run(config) as agent:
        await agent.until_commit(bench.first)
        with pytest.raises(ConfigError, match="nowhere to deploy to is configured"):
            await agent.ask("/deploy", {"refspec": REFSPEC})
        with pytest.raises(ConfigError, match="nowhere to deploy to is configured"):
            await agent.ask("/rollback", {})


async def test_a_writer_in_a_process_of_its_own_does_the_same(bench: Bench) -> None:
    config = bench.config(writer="process")
    async with run(config) as agent:
        await agent.until_commit(bench.first)
        assert deployed(config) == f"{bench.time}\n"


async def test_a_commit_that_is_not_signed_as_demanded_is_refused_and_said(
    bench: Bench, tmp_path: Path
) -> None:
    stranger = Publisher.create(tmp_path / "stranger")
    config = bench.config()
    key = str(stranger.keys / "signing.pub")
    config = replace(config, follow=(replace(config.follow[0], key=key),))
    async with run(config) as agent:
        status = await agent.until(lambda s: s["branches"][0]["failures"] > 0)
        assert status["branches"][0]["commit"] is None
        assert status["branches"][0]["last"]["error"] == "SignatureError"
        assert status["deployments"] == []


async def test_damage_to_what_it_remembers_is_a_problem_it_tells_of(
    bench: Bench,
) -> None:
    config = bench.config()
    Path(config.state).mkdir(parents=True)
    Path(config.state, "agent.json").write_text("{")
    async with run(config) as agent:
        status = await agent.until_commit(bench.first)
        (problem,) = status["problems"]
    assert "was damaged and set aside" in problem


async def test_a_remote_of_that_name_with_another_url_is_an_error(
    bench: Bench,
) -> None:
    config = bench.config()
    async with run(config) as agent:
        await agent.until_commit(bench.first)
    other = replace(config.follow[0], url="http://elsewhere.example")
    with pytest.RaisesGroup(pytest.RaisesExc(ConfigError, match="its url is")):
        async with run(replace(config, follow=(other,))):
            pass


@pytest.mark.parametrize(
    "path, body, complaint",
    [
        ("/follow", {}, "lacks a text 'refspec'"),
        ("/follow", {"refspec": 7}, "lacks a text 'refspec'"),
        ("/follow", {"refspec": "x"}, "'x' is not REMOTE:REF"),
        ("/deploy", {"refspec": "a:../b"}, "not a ref"),
    ],
)
async def test_commands_that_make_no_sense_are_refused(
    bench: Bench, path: str, body: dict[str, Any], complaint: str
) -> None:
    async with run(bench.config(), share=False) as agent:
        with pytest.raises(FormatError, match=complaint):
            await agent.ask(path, body)


async def test_only_the_user_and_the_group_may_command(bench: Bench) -> None:
    config = bench.config()
    async with run(config, share=False) as agent:
        mode = stat.S_IMODE(os.stat(config.socket).st_mode)
        assert mode == 0o660
        await agent.status()
    assert not Path(config.socket).exists()
    with pytest.raises(AgentError, match="no agent is running"):
        await agent.status()


async def test_nonsense_on_the_socket_is_answered_and_harms_nobody(
    bench: Bench,
) -> None:
    config = bench.config()
    async with run(config, share=False) as agent:
        for body in (b"{", b"[]", b"[" * 60_000):
            stream = await trio.open_unix_socket(config.socket)
            head = b"POST /check HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            async with stream:
                await stream.send_all(head % len(body) + body)
                answer = bytes(await stream.receive_some(65536))
            assert answer.startswith(b"HTTP/1.1 400")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == (
                "FormatError"
            )
        with pytest.raises(AgentError, match="There is nothing here"):
            await agent.ask("/nothing")


async def test_what_keeps_it_from_meeting_anybody_keeps_no_update_away(
    bench: Bench,
) -> None:
    fleet = Fleet(authority="/none/ca.pem", certificate="/none/c.pem", key="/none/k")
    async with run(bench.config(fleet=fleet)) as agent:
        status = await agent.until_commit(bench.first)
        (problem,) = status["problems"]
        assert "no neighbours are met" in problem
        assert "/none/ca.pem" in problem
        assert status["port"] is None


async def test_what_is_here_of_a_branch_is_shared_once_it_is_followed(
    bench: Bench,
) -> None:
    config = bench.config("one")
    async with run(config) as one:
        await one.until_commit(bench.first)
    repo = Repo.open(config.repo)
    repo.keys.set('remote "hub"', "url", "http://127.0.0.1:9")  # nobody answers
    repo.save_config()
    async with run(replace(config, follow=())) as one:
        status = await one.until(lambda s: s["port"] is not None)
        other = replace(bench.config("two", peers=neighbour_of(status)), follow=())
        async with run(other) as two:
            await two.until(lambda s: s["neighbours"] == 1)
            await one.ask("/follow", {"refspec": REFSPEC})
            held: list[str] = []
            with trio.fail_after(10):
                while held != [bench.first]:
                    (peer,) = (await two.ask("/peers"))["peers"]
                    held = [each["commit"] for each in peer["commits"]]


async def test_only_the_head_and_the_commit_before_are_shared(bench: Bench) -> None:
    async with run(bench.config("one")) as one:
        status = await one.until_commit(bench.first)
        config = bench.config("two", peers=neighbour_of(status))
        async with run(replace(config, follow=())) as two:
            commits = [bench.first]
            for _ in range(3):
                commits.append(bench.next_commit())
                await one.ask("/check", {})
                await one.until_commit(commits[-1])
            held: set[str] = set()
            with trio.fail_after(10):
                while held != set(commits[-2:]):
                    for peer in (await two.ask("/peers"))["peers"]:
                        held = {each["commit"] for each in peer["commits"]}


async def test_a_neighbour_cannot_make_it_ask_the_origin_again_and_again(
    bench: Bench,
) -> None:
    async with run(bench.config("one")) as one:
        status = await one.until_commit(bench.first)
        bench.origin.served.clear()
        config = bench.config("two", peers=neighbour_of(status))
        async with sharing_noise(config, 50):
            await one.until(lambda s: s["neighbours"] == 1)
            await one.until(lambda s: s["branches"][0]["last"]["time"] is not None)
        asked = [path for path in bench.origin.served if path.startswith("/refs")]
    assert len(asked) < 5


@asynccontextmanager
async def sharing_noise(config: AgentConfig, count: int) -> AsyncIterator[None]:
    """A neighbour that begins with one new commit after the other."""
    repo = Repo.init(config.repo, RepoMode.BARE_USER)
    options = MeetingOptions.of(config)
    async with open_meeting(Holdings.published(repo), options) as meeting:
        with trio.fail_after(10):
            while not len(meeting.neighbours):
                await trio.lowlevel.checkpoint()
        for number in range(count):
            meeting.sharing.begin(Checksum(f"{number:064x}"))
            await trio.testing.wait_all_tasks_blocked(0.001)
        yield
