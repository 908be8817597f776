"""The service's files: installed where they belong, understood by systemd, tight."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from p2p.agent.config import AgentConfig, parse_config
from p2p.net.target import Target
from tests.require import require

SOURCE = Path(__file__).parents[2] / "systemd"
ROOT = SOURCE.parent
DEFAULTS = AgentConfig(repo="/r", state="/s", socket="/s/agent.sock")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the service is installed."""
    root = tmp_path / "root"
    subprocess.run(
        ["make", "-s", "install-service", f"DESTDIR={root}"], cwd=ROOT, check=True
    )
    return root


def run(*command: str | Path) -> str:
    require(str(command[0]))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_systemd_finds_nothing_wrong_with_the_units(root: Path) -> None:
    units = root / "usr/lib/systemd/system"
    for unit in units.iterdir():
        # The program need not be installed on this machine.
        unit.write_text(unit.read_text().replace("=p2p ", "=/bin/true "))
    said = run("systemd-analyze", "verify", *sorted(units.iterdir()))
    assert "ostree-p2p" not in said


@pytest.mark.parametrize(
    "unit, limit", [("ostree-p2p.service", 30), ("ostree-p2p-writer@.service", 65)]
)
def test_the_units_give_away_no_more_than_they_need(unit: str, limit: int) -> None:
    said = run(
        "systemd-analyze",
        "security",
        "--offline=yes",
        f"--threshold={limit}",
        SOURCE / unit,
    )
    assert "Overall exposure level" in said


@pytest.mark.root
def test_the_user_and_the_directories_are_made(root: Path) -> None:
    for name in ("passwd", "group", "shadow", "gshadow"):
        path = root / "etc" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("root:x:0:0:root:/root:/bin/sh\n" if name == "passwd" else "")
    run("systemd-sysusers", f"--root={root}", "ostree-p2p.conf")
    assert re.search("^ostree-p2p:", (root / "etc/passwd").read_text(), re.MULTILINE)
    (root / "run").mkdir()
    run("systemd-tmpfiles", f"--root={root}", "--create", "ostree-p2p.conf")
    shared = (root / "run/ostree-p2p").stat()
    assert (shared.st_mode & 0o7777, shared.st_uid) == (0o1775, 0)
    assert shared.st_gid != 0
    kept = (root / "var/lib/ostree-p2p").stat()
    assert (kept.st_mode & 0o7777, kept.st_uid) == (0o755, 0)


def test_the_service_has_a_writer_of_its_own(root: Path) -> None:
    (path,) = (root / "usr/lib/ostree-p2p/agent.d").iterdir()
    config = parse_config([(str(path), path.read_text())], DEFAULTS)
    socket = (SOURCE / "ostree-p2p-writer.socket").read_text()
    assert f"ListenStream={config.writer}\n" in socket


# -- the sample configuration ----------------------------------------------------------


def uncommented(*skipped: str) -> str:
    """The sample with all its settings, but for those that begin so."""
    lines = (SOURCE / "agent.toml").read_text().splitlines()
    settings = [line[1:] for line in lines if re.match(r"#[^ ]", line)]
    return "\n".join(line for line in settings if not line.startswith(skipped))


def test_the_sample_as_it_is_changes_nothing() -> None:
    text = (SOURCE / "agent.toml").read_text()
    assert parse_config([("/etc/agent.toml", text)], DEFAULTS) == DEFAULTS


def test_the_sample_has_every_setting() -> None:
    config = parse_config([("/etc/agent.toml", uncommented())], DEFAULTS)
    same = {
        field.name
        for field in fields(AgentConfig)
        if getattr(config, field.name) == getattr(DEFAULTS, field.name)
    }
    # Examples that are the default, and one whose name says what it does.
    ports = {"listen_host", "listen_port"}
    assert same == {"compress", "mdns", "share_protected", *ports}
    assert config.peers[1] == Target("depot.example", config.listen_port)
    names = set(re.findall(r"^([a-z-]+) =", uncommented(), re.MULTILINE))
    assert {"mdns", "listen", "protected"} <= names
    assert config.fleet is not None
    assert config.fleet.key == "/etc/fleet/device.key"
