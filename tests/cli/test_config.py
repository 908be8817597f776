"""`p2p config`: what counts, said as a file would say it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.agent.config import AgentConfig, Fleet, Follow, parse_config
from p2p.agent.config_text import config_table, to_toml
from p2p.agent.hours import Window
from p2p.agent.limits import LimitTable
from p2p.cli.main import main
from p2p.deploy.target import SysrootTarget, TreeTarget
from p2p.net.target import Target

Capture = pytest.CaptureFixture[str]

DEFAULTS = AgentConfig(repo="/r", state="/s", socket="/s/agent.sock")
FULL = AgentConfig(
    repo="/sysroot/ostree/repo",
    state="/var/lib/x",
    socket="/run/x/agent.sock",
    writer="/run/x/writer.sock",
    site='plant "4"',
    fleet=Fleet(authority="/f/ca", certificate="/f/c", key="/f/k", secret="/f/s"),
    listen_host="::1",
    listen_port=7000,
    mdns=False,
    interfaces=("eth*", "lo"),
    never_interfaces=("eth9",),
    peers=(Target("fe80::1%eth0", 7), Target("depot.example", 8)),
    compress=False,
    share=True,
    share_protected=True,
    poll_seconds=12.5,
    max_offline_age=3600.0,
    credentials={"hub": "/c/hub.zip", "a.b": "/c/other.json"},
    deploy=SysrootTarget("/", "factory"),
    limits=LimitTable(
        values={
            "upload": 250_000.0,
            "download": None,
            "origin": 62_500.0,
            "site-origin": 125_000.0,
            "dscp": None,
            "metered": True,
            "cache": 3 << 30,
        },
        metered_interfaces=("wwan*",),
    ),
    hours=(
        Window(days=(0, 5, 6), begin=480, end=1440, values={"upload": 8_000.0}),
        Window(days=(4,), begin=1320, end=360, values={"upload": None, "dscp": 8}),
    ),
    follow=(
        Follow(remote="hub", ref="os/stable", deploy=True),
        Follow(remote="a", ref="b", url="http://x/", key="/k.pub"),
    ),
)


@pytest.mark.parametrize(
    "config",
    [
        DEFAULTS,
        FULL,
        replace(FULL, deploy=TreeTarget("/run/app"), listen_host="", fleet=None),
        replace(DEFAULTS, deploy=SysrootTarget("/"), listen_host="10.0.0.1"),
    ],
)
def test_what_is_shown_is_read_as_the_same(config: AgentConfig) -> None:
    text = to_toml(config_table(config))
    assert parse_config([("/x.toml", text)], DEFAULTS) == config


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_text_is_quoted(text: str) -> None:
    config = replace(DEFAULTS, site=text, interfaces=(text,))
    shown = to_toml(config_table(config))
    assert parse_config([("/x.toml", shown)], DEFAULTS) == config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text('repo = "repo"\n[share]\nenabled = true\n')
    return path


def test_a_right_file_is_ok(file: Path, capsys: Capture) -> None:
    assert main(["config", "check", f"--config={file}"]) == 0
    assert capsys.readouterr().out == f"ok  {file}\n"
    assert main(["config", "check", f"--config={file}", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {"valid": True, "files": [str(file)]}


def test_a_wrong_file_is_named_with_its_key(file: Path, capsys: Capture) -> None:
    file.write_text("[neighbours]\nmdns = 7\n")
    for command in ("check", "show"):
        assert main(["config", command, f"--config={file}"]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert f"{file}: neighbours.mdns: must be true or false" in said.err
    assert main(["config", "check", f"--config={file}", "--json"]) == 2
    record = json.loads(capsys.readouterr().out)
    assert (record["error"], record["exit_code"]) == ("ConfigError", 2)


def test_the_settings_that_count_are_shown(file: Path, capsys: Capture) -> None:
    assert main(["config", "show", f"--config={file}"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"# from {file}\nrepo = ")
    config = parse_config([("/x.toml", shown)], DEFAULTS)
    assert (config.repo, config.share) == (str(file.parent / "repo"), True)
    assert main(["config", "show", f"--config={file}", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["settings"]["share"] == {"enabled": True, "protected": False}


def test_without_a_file_defaults_count(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("VENDOR_DIRECTORY", "SYSTEM_DIRECTORY"):
        monkeypatch.setattr(f"p2p.agent.config.{place}", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["config", "check"]) == 0
    assert "there is no configuration file" in capsys.readouterr().out
