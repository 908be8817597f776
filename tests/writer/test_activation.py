"""A writer that is started for whoever connects: it alone says what is written."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2p.agent.writing import connect_writer, open_lasting_writer
from p2p.cli.main import main
from p2p.errors import ConfigError, ReadOnlyError, WriterError
from p2p.ostree.config import RepoMode
from p2p.ostree.messages import Done, Sync
from p2p.ostree.repo import Repo
from p2p.trust.keys import generate_key_pair
from tests.mounts import MakeMount
from tests.require import find_program, require
from tests.trees import MIB
from tests.writer.activation import ROOT, Units, activating, writer_command


@contextmanager
def socket_activate(path: Path, config: Path) -> Iterator[None]:
    """The same by systemd's own program."""
    program = find_program("systemd-socket-activate")
    assert program is not None
    command = [program, "--accept", "--inetd", f"--listen={path}"]
    with subprocess.Popen(
        [*command, *writer_command(config)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            assert "Listening on" in process.stderr.readline()
            yield
        finally:
            process.terminate()


def configuration(repo: Repo) -> Path:
    """Write an agent's configuration of a repository; return its path."""
    path = Path(repo.path).parent / "agent.toml"
    path.write_text(f'repo = "{repo.path}"\n')
    return path


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


@contextmanager
def read_only(point: Path) -> Iterator[None]:
    """Look at a directory through a mount that is read-only, as /sysroot is."""
    mount("--bind", point, point)
    try:
        mount("-o", "remount,bind,ro", point)
        yield
    finally:
        subprocess.run(["umount", point], check=True)


async def test_systemd_starts_a_writer_for_who_connects(
    repo: Repo, tmp_path: Path
) -> None:
    require("systemd-socket-activate")
    place = tmp_path / "writer.sock"
    with socket_activate(place, configuration(repo)):
        async with connect_writer(str(place)) as writer:
            assert await writer.call(Sync()) == Done()


async def test_where_nobody_listens_the_unit_to_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriterError, match=r"no writer at .*none\.sock") as caught:
        async with connect_writer(str(tmp_path / "none.sock")):
            pytest.fail("a writer that is not there")
    assert "ostree-p2p-writer.socket" in caught.value.hint


async def test_the_repository_and_its_remotes_are_made_first(tmp_path: Path) -> None:
    generate_key_pair(tmp_path / "keys")
    config = tmp_path / "agent.toml"
    config.write_text(
        'repo = "repo"\n[[follow]]\nref = "hub:os"\n'
        'url = "http://hub.example"\nkey = "keys/signing.pub"\n'
    )
    place = tmp_path / "writer.sock"
    with activating(place, Units(config)) as statuses:
        async with connect_writer(str(place)) as writer:
            await writer.call(Sync())
    assert statuses == [0]
    repo = Repo.open(tmp_path / "repo")
    mode = RepoMode.BARE if os.geteuid() == 0 else RepoMode.BARE_USER
    assert repo.config.mode is mode
    assert repo.remote("hub").url == "http://hub.example"


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("repo = 1", "agent.toml: repo: must be text"),
        ('[deploy]\nsysroot = "."', "not an OSTree sysroot"),
        ('[[follow]]\nref = "hub:os"', "'hub'"),
    ],
)
async def test_what_is_wrong_with_its_configuration_the_agent_hears(
    repo: Repo, tmp_path: Path, text: str, complaint: str
) -> None:
    config = tmp_path / "agent.toml"
    line = "" if text.startswith("repo") else f'repo = "{repo.path}"\n'
    config.write_text(line + text)
    place = tmp_path / "writer.sock"
    with (
        activating(place, Units(config)) as statuses,
        pytest.raises(ConfigError, match=complaint),
    ):
        async with connect_writer(str(place)):
            pytest.fail("a writer that must not be")
    assert statuses == [ConfigError.exit_code]


async def test_after_a_writer_died_the_next_call_starts_another(
    repo: Repo, tmp_path: Path
) -> None:
    place = tmp_path / "writer.sock"
    units = Units(configuration(repo))
    with activating(place, units) as statuses:
        async with open_lasting_writer(lambda: connect_writer(str(place))) as writer:
            assert await writer.call(Sync()) == Done()
            os.kill(units.pids[0], signal.SIGKILL)
            with pytest.raises(WriterError):
                await writer.call(Sync())
            assert await writer.call(Sync()) == Done()
    assert statuses == [-9, 0]


def test_a_person_who_types_it_is_told_who_starts_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "p2p", "writer"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ConfigError.exit_code
    assert "ostree-p2p-writer.socket" in done.stderr
    assert main(["--help"]) == 0
    assert "writer" not in capfd.readouterr().out


async def test_a_read_only_sysroot_is_writable_for_the_writer_alone(
    repo: Repo, tmp_path: Path, tmpfs: MakeMount
) -> None:
    point = tmpfs(MIB)
    shutil.copytree(repo.path, point / "repo")
    config = tmp_path / "agent.toml"
    config.write_text(f'repo = "{point}/repo"\n')
    place = tmp_path / "writer.sock"
    with read_only(point):
        with activating(place, Units(config)):
            async with connect_writer(str(place)) as writer:
                assert await writer.call(Sync()) == Done()
                with pytest.raises(OSError, match="Read-only"):
                    (point / "repo" / "new").touch()
        assert (point / "repo" / "extensions/p2p/stage").is_dir()


async def test_a_filesystem_that_stays_read_only_is_named(
    repo: Repo, tmp_path: Path, tmpfs: MakeMount
) -> None:
    point = tmpfs(MIB)
    shutil.copytree(repo.path, point / "repo")
    mount("-o", "remount,ro", point)
    config = tmp_path / "agent.toml"
    config.write_text(f'repo = "{point}/repo"\n')
    place = tmp_path / "writer.sock"
    with (
        activating(place, Units(config)),
        pytest.raises(ReadOnlyError, match=f"{point} cannot be made writable"),
    ):
        async with connect_writer(str(place)):
            pytest.fail("a writer that cannot write")
