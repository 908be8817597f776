"""`p2p deploy`, `rollback` and `deployments` on a repository, without an agent."""

import json
from pathlib import Path

import pytest
import trio

from p2p.agent.config import AgentConfig
from p2p.cli.main import main
from p2p.deploy.target import TreeTarget
from p2p.errors import FormatError
from p2p.ostree.repo import Repo
from tests.agent.agents import run
from tests.deploy.places import (
    MAIN,
    ONE,
    REFSPEC,
    TWO,
    assert_sound,
    publish,
    repo_of,
)
from tests.trust.samples import ALICE
from tests.writer.test_service import configure

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repo_of(tmp_path / "repo", ONE)


@pytest.fixture
def place(repo: Repo, tmp_path: Path) -> list[str]:
    """The options that say where."""
    return [f"--repo={repo.path}", f"--tree={tmp_path}/root"]


def said(capsys: Capture) -> str:
    return capsys.readouterr().out.strip()


def test_what_was_pulled_is_deployed_listed_and_rolled_back(
    repo: Repo, place: list[str], tmp_path: Path, capsys: Capture
) -> None:
    root = tmp_path / "root"
    assert main(["deployments", *place]) == 0
    assert said(capsys) == "nothing is deployed"
    assert main(["deploy", REFSPEC, *place]) == 0
    assert said(capsys).split()[:3] == ["current", f"{ONE.checksum}.0", REFSPEC]
    publish(repo, TWO)
    assert main(["deploy", REFSPEC, *place]) == 0
    assert assert_sound(root) == TWO.checksum
    capsys.readouterr()
    assert main(["deploy", REFSPEC, *place]) == 0
    assert said(capsys).startswith("unchanged, current")
    assert main(["rollback", *place]) == 0
    assert assert_sound(root) == ONE.checksum
    capsys.readouterr()
    assert main(["deployments", *place]) == 0
    assert [line.split()[:2] for line in said(capsys).splitlines()] == [
        ["current", f"{ONE.checksum}.0"],
        ["previous", f"{TWO.checksum}.0"],
    ]


def test_results_are_one_json_object(
    repo: Repo, place: list[str], capsys: Capture
) -> None:
    assert main(["deploy", REFSPEC, "--json", *place]) == 0
    result = json.loads(said(capsys))
    expected = {
        "commit": ONE.checksum,
        "id": f"{ONE.checksum}.0",
        "refspec": REFSPEC,
        "state": "current",
        "pinned": False,
        "changed": True,
        "notes": [],
    }
    assert result | expected == result
    assert main(["deployments", "--json", *place]) == 0
    (only,) = json.loads(said(capsys))["deployments"]
    assert {key: result[key] for key in only} == only


def test_a_pin_is_kept_and_shown(repo: Repo, place: list[str], capsys: Capture) -> None:
    main(["deploy", REFSPEC, *place])
    capsys.readouterr()
    assert main(["deployments", f"--pin={ONE.checksum}.0", *place]) == 0
    assert said(capsys).endswith("pinned")
    assert main(["deployments", f"--unpin={ONE.checksum}.0", *place]) == 0
    assert not said(capsys).endswith("pinned")
    assert main(["deployments", "--pin=x", *place]) == 50


def test_a_commit_that_nobody_vouches_for_is_not_deployed(
    repo: Repo, place: list[str], tmp_path: Path, capsys: Capture
) -> None:
    configure(repo, sign_verify="true", verification_ed25519_key=str(ALICE.public))
    assert main(["deploy", REFSPEC, *place]) == 11
    assert "p2p remote add" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["deploy", "main"], 40, "not REMOTE:REF"),
        (["deploy", "o:other"], 35, "no ref"),
        (["deploy", "other:main"], 35, "no ref"),
        (["rollback"], 50, "no other deployment"),
        (["deploy", "--stage", REFSPEC], 2, "lost with the power"),
        (["deploy", "--os=x", REFSPEC], 2, "contradicts"),
        (["deploy", "--sysroot=/", REFSPEC], 2, "contradicts"),
        (["deploy"], 2, "REMOTE:REF"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_says_why(
    place: list[str], capsys: Capture, arguments: list[str], code: int, words: str
) -> None:
    assert main([*arguments, *place]) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["deploy", REFSPEC], ["rollback"], ["deployments"]]
)
def test_a_repository_without_a_place_is_refused(
    repo: Repo, capsys: Capture, command: list[str]
) -> None:
    assert main([*command, f"--repo={repo.path}"]) == 2
    assert "--tree or --sysroot" in capsys.readouterr().err


def test_a_directory_that_is_no_sysroot_is_refused(
    repo: Repo, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["deploy", REFSPEC, f"--sysroot={tmp_path}"]) == 2
    assert (
        main(["deploy", REFSPEC, f"--repo={repo.path}", f"--sysroot={tmp_path}"]) == 2
    )
    assert "not an OSTree sysroot" in capsys.readouterr().err
    assert repo.refs.get(MAIN) == ONE.checksum


@pytest.mark.parametrize(
    "command", [["deploy", REFSPEC], ["rollback"], ["deployments"]]
)
def test_without_a_place_the_agent_is_asked(
    tmp_path: Path, capsys: Capture, command: list[str]
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'socket = "{tmp_path}/agent.sock"\n')
    assert main([*command, f"--config={config}"]) != 0
    assert f"no agent is running at {tmp_path}/agent.sock" in capsys.readouterr().err


async def test_the_agent_has_it_deployed_where_its_writer_was_told_to(
    repo: Repo, tmp_path: Path, capsys: Capture
) -> None:
    socket = str(tmp_path / "agent.sock")
    config = AgentConfig(
        repo=repo.path,
        state=str(tmp_path / "state"),
        socket=socket,
        listen_host="127.0.0.1",
        listen_port=0,
        mdns=False,
        deploy=TreeTarget(str(tmp_path / "root")),
    )
    settings = tmp_path / "agent.toml"
    settings.write_text(f'socket = "{socket}"\n')

    async def command(*arguments: str) -> str:
        line = [*arguments, f"--config={settings}"]
        assert await trio.to_thread.run_sync(main, line) == 0
        return said(capsys)

    async with run(config):
        assert await command("deployments") == "nothing is deployed"
        assert (await command("deploy", REFSPEC)).startswith("current")
        publish(repo, TWO)
        deployed = json.loads(await command("deploy", REFSPEC, "--json"))
        assert deployed["commit"] == TWO.checksum
        assert assert_sound(tmp_path / "root") == TWO.checksum
        assert f"current   {ONE.checksum}.0" in await command("rollback")
        listed = json.loads(await command("deployments", "--json"))["deployments"]
        assert [each["commit"] for each in listed] == [ONE.checksum, TWO.checksum]


# -- steps -----------------------------------------------------------------------------

STEPS = ["plan", "fetched", "deployed", "confirming", "confirmed"]


def test_the_steps_of_updates_are_shown(
    repo: Repo, place: list[str], capsys: Capture
) -> None:
    assert main(["history", *place]) == 0
    assert said(capsys) == "nothing was deployed yet"
    assert main(["deploy", REFSPEC, *place]) == 0
    capsys.readouterr()
    assert main(["history", *place]) == 0
    lines = [line.split() for line in said(capsys).splitlines()]
    assert [line[2:4] for line in lines] == [[s, ONE.checksum[:16]] for s in STEPS]
    assert main(["history", "--json", *place]) == 0
    answer = json.loads(said(capsys))
    assert answer["update"]["step"] == "confirmed"
    assert (answer["update"]["ended"], answer["bad"]) == (True, [])
    assert main(["events", "--json", *place]) == 0
    events = [json.loads(line) for line in said(capsys).splitlines()]
    assert events == answer["events"]


async def test_a_running_agent_tells_the_steps_as_they_are_made(
    repo: Repo, tmp_path: Path, capsys: Capture
) -> None:
    config = AgentConfig(
        repo=repo.path,
        state=str(tmp_path / "state"),
        socket=str(tmp_path / "agent.sock"),
        deploy=TreeTarget(str(tmp_path / "root")),
        mdns=False,
    )
    async with run(config) as agent:
        assert (await agent.status())["update"] is None
        await agent.ask("/deploy", {"refspec": REFSPEC})
        status = await agent.status()
        assert status["update"]["step"] == "confirmed"
        answer = await agent.ask("/history", {"after": 2})
        assert [event["step"] for event in answer["events"]] == STEPS[2:]
        with pytest.raises(FormatError, match="no number"):
            await agent.ask("/history", {"after": "x"})


def write_config(path: Path, text: str) -> str:
    path.write_text(text)
    return f"--config={path}"


def test_confirm_takes_up_what_was_booted(
    repo: Repo, place: list[str], tmp_path: Path, capsys: Capture
) -> None:
    text = f'repo = "{repo.path}"\n[deploy]\ntree = "{tmp_path}/root"\n'
    config = write_config(tmp_path / "agent.toml", text)
    assert main(["confirm", config]) == 0
    assert said(capsys) == "nothing was deployed yet"
    assert main(["deploy", REFSPEC, *place]) == 0
    capsys.readouterr()
    assert main(["confirm", "--json", config]) == 0
    assert json.loads(said(capsys))["update"]["step"] == "confirmed"
    nowhere = write_config(tmp_path / "none.toml", f'repo = "{repo.path}"\n')
    assert main(["confirm", nowhere]) == 2
