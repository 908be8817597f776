"""Pulls into repositories that cannot take it: said clearly, and nothing lost."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.agent.origins import Origin, pull, run_origin
from tests.mounts import MakeMount
from tests.pulls import REF, REMOTE, Client
from tests.require import require
from tests.trees import MIB
from tests.web.treehub.hub import Objects, make_commit

WRITERS = ("--writer=thread", "--writer=process")
SMALL = 4 * MIB


@pytest.fixture
def made() -> Objects:
    """More than a small disk takes, in files of which many fit."""
    return make_commit({f"file-{n}": os.urandom(60_000) for n in range(100)})


def remount(point: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", point], check=True)


def objects_asked(origin: Origin, since: int) -> set[str]:
    paths = (asked.path for asked in origin.server.asked[since:])
    return {p for p in paths if "/objects/" in p and not p.endswith(".commitmeta")}


def staged(client: Client) -> set[str]:
    store = client.path / "extensions/p2p/stage/objects"
    return {f"{p.parent.name}/{p.stem}" for p in store.rglob("*.*")}


@pytest.mark.root
@pytest.mark.parametrize("writer", WRITERS)
async def test_a_full_disk_keeps_what_came_and_goes_on_when_there_is_room(
    writer: str, made: Objects, tmpfs: MakeMount
) -> None:
    require("root")
    point = tmpfs(SMALL)
    async with run_origin(made) as origin:
        client = Client.create(point / "repo", "bare-user", origin.server.url)
        client.configure("core", min_free_space_percent="0")
        result = await pull(client, writer, REF)
        assert result.status == 31
        assert "space" in result.err
        client.check_nothing_visible()
        kept = staged(client)
        assert len(kept) > 10
        remount(point, f"size={8 * SMALL}")
        since = len(origin.server.asked)
        (await pull(client, writer, REF)).check()
        again = {
            path.partition("/objects/")[2] for path in objects_asked(origin, since)
        }
        assert not {path.rpartition(".")[0] for path in again} & kept
        client.check_sound()
        assert client.refs() == {f"remotes/{REMOTE}/{REF}": made.commit}


@pytest.mark.root
async def test_the_reserve_is_looked_at_before_anything_is_fetched(
    made: Objects, tmpfs: MakeMount
) -> None:
    require("root")
    async with run_origin(made) as origin:
        client = Client.create(tmpfs(SMALL) / "repo", "bare-user", origin.server.url)
        client.configure("core", min_free_space_size="5MB")
        result = await pull(client)
        assert result.status == 31
        assert "min-free-space" in result.err
        assert objects_asked(origin, 0) == set()


@pytest.mark.root
@pytest.mark.parametrize("writer", WRITERS)
async def test_a_repository_on_a_read_only_filesystem(
    writer: str, made: Objects, tmpfs: MakeMount
) -> None:
    require("root")
    point = tmpfs()
    async with run_origin(made) as origin:
        client = Client.create(point / "repo", "bare-user", origin.server.url)
        remount(point, "ro")
        result = await pull(client, writer, REF)
        assert result.status == 32
        assert "Read-only" in result.err
        assert client.refs() == {}
        assert objects_asked(origin, 0) == set()


@pytest.mark.parametrize(
    "section, key, value",
    [
        ("core", "mode", "bare-upside-down"),
        ("core", "fsync", "perhaps"),
        ("core", "min-free-space-percent", "120"),
        ("core", "lock-timeout-secs", "soon"),
        (f'remote "{REMOTE}"', "gpg-verify", "sometimes"),
        (f'remote "{REMOTE}"', "sign-verify", "rot13"),
        (f'remote "{REMOTE}"', "url", "gopher://host"),
    ],
)
async def test_a_setting_that_is_wrong_is_named_before_anything_is_asked(
    section: str, key: str, value: str, made: Objects, tmp_path: Path
) -> None:
    async with run_origin(made) as origin:
        client = Client.create(tmp_path / "repo", "bare-user", origin.server.url)
        client.stock.run("config", "set", f"--group={section}", key, value)
        result = await pull(client)
        assert result.status == 2, result.err
        assert key in result.err or value[:6] in result.err
        assert not origin.server.asked


async def test_a_configuration_that_is_none_is_named_with_its_line(
    made: Objects, tmp_path: Path
) -> None:
    async with run_origin(made) as origin:
        client = Client.create(tmp_path / "repo", "bare-user", origin.server.url)
        config = client.path / "config"
        config.write_text(config.read_text() + "what is this\n")
        result = await pull(client)
        assert result.status == 2
        assert str(config) in result.err
        assert not origin.server.asked
