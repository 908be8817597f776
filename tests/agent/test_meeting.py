"""What it takes to meet: an epoch that grows, a port, and oneself left alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from p2p.agent.config import AgentConfig
from p2p.agent.meeting import MeetingOptions, next_epoch, open_meeting
from p2p.errors import ConfigError, RepositoryError
from p2p.net.target import Target
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.repo import Repo
from p2p.swarm import overlay


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.init(tmp_path / "repo", RepoMode.BARE_USER)


def options(state: Path, *peers: int, port: int = 0) -> MeetingOptions:
    return MeetingOptions(
        state=str(state),
        host="127.0.0.1",
        port=port,
        peers=tuple(Target("127.0.0.1", peer) for peer in peers),
    )


def test_an_epoch_is_larger_at_each_start(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    assert [next_epoch(state) for _ in range(3)] == [1, 2, 3]


def test_a_damaged_epoch_begins_again_above_all_before(tmp_path: Path) -> None:
    (tmp_path / "epoch").write_bytes(b"\0\0")
    assert next_epoch(str(tmp_path)) > 1_600_000_000


def test_a_state_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(RepositoryError):
        next_epoch(str(tmp_path / "state"))


async def test_two_meet_and_know_who_the_other_is(tmp_path: Path, repo: Repo) -> None:
    holdings = Holdings.published(repo)
    async with open_meeting(holdings, options(tmp_path / "a")) as one:
        other = options(tmp_path / "b", one.port)
        async with open_meeting(holdings, other) as two:
            with trio.fail_after(10):
                while not (len(one.neighbours) and len(two.neighbours)):
                    await trio.lowlevel.checkpoint()
            (seen,) = one.neighbours.describe()["peers"]
            assert seen["device"] == two.neighbours.me
            assert seen["software"].startswith("ostree-p2p/")
            (met,) = two.neighbours
            assert met.instance == one.neighbours.instance
            assert two.neighbours.meets(one.neighbours.instance)
            assert one.problems() == two.problems() == []
            instance = one.neighbours.instance
        with trio.fail_after(10):
            await two.neighbours.until_gone(instance)


async def test_who_has_sessions_enough_says_so(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "MOST_STRANGERS", 0)
    holdings = Holdings.published(repo)
    async with (
        open_meeting(holdings, options(tmp_path / "a")) as one,
        open_meeting(holdings, options(tmp_path / "b")) as two,
    ):
        met = await one.neighbours.dial([Target("127.0.0.1", two.port)])
        assert met.end is overlay.End.REFUSED
        assert len(two.neighbours) == 0
        (ended,) = one.neighbours.describe()["ended"]
        assert ended["reason"] == "it left, overloaded"


async def test_a_device_does_not_meet_itself(tmp_path: Path, repo: Repo) -> None:
    holdings = Holdings.published(repo)
    async with open_meeting(holdings, options(tmp_path)) as meeting:
        with trio.fail_after(10):
            target = Target("127.0.0.1", meeting.port)
            assert not (await meeting.neighbours.dial([target])).was_up
        assert meeting.neighbours.endings == {"ConnectError": 1}
        assert len(meeting.neighbours) == 0


async def test_a_port_that_is_taken_is_named_or_another_one_is_used(
    tmp_path: Path, repo: Repo
) -> None:
    holdings = Holdings.published(repo)
    async with open_meeting(holdings, options(tmp_path / "a")) as first:
        taken = options(tmp_path / "b", port=first.port)
        with pytest.raises(ConfigError, match=str(first.port)):
            async with open_meeting(holdings, taken):
                pass

        async with open_meeting(holdings, replace(taken, any_port=True)) as second:
            assert second.port not in (0, first.port)


async def test_a_new_key_after_damage_is_said(tmp_path: Path, repo: Repo) -> None:
    (tmp_path / "device-1.pem").write_text("rubbish")
    holdings = Holdings.published(repo)
    async with open_meeting(holdings, options(tmp_path)) as meeting:
        (problem,) = meeting.problems()
    assert "a new device key was made" in problem


def test_several_agents_on_a_host_need_no_configuration_of_ports() -> None:
    config = AgentConfig(repo="/repo", state="/state", socket="/socket")
    assert MeetingOptions.of(config).any_port
    # Where mDNS tells nobody the port, or it was chosen, another one is no use.
    assert not MeetingOptions.of(replace(config, mdns=False)).any_port
    assert not MeetingOptions.of(replace(config, listen_port=4711)).any_port


async def test_one_that_is_there_but_says_nothing_is_not_taken_for_gone(
    tmp_path: Path, repo: Repo
) -> None:
    async with open_meeting(Holdings.published(repo), options(tmp_path)) as meeting:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                trio.serve_listeners, trio.SocketStream.aclose, [listener]
            )
            target = Target("127.0.0.1", listener.socket.getsockname()[1])
            assert (await meeting.neighbours.dial([target])).end is overlay.End.SLOW
            nursery.cancel_scope.cancel()
        met = await meeting.neighbours.dial([target])
        assert met.end is overlay.End.FAILED
