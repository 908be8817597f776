"""When a reboot is due, who puts it off, and what is run around it."""

import json
import os
import time
from pathlib import Path

import pytest

from p2p.deploy.policy import Policy, inhibitors, outside_window, parse_inhibitors
from p2p.deploy.settings import Reboot, Settings, parse_settings
from p2p.errors import ConfigError, DeployError
from tests.deploy.conftest import WriteScript

NOON = time.mktime((2026, 6, 1, 12, 0, 0, 0, 152, -1))


@pytest.fixture(autouse=True)
def no_systemd(write: WriteScript, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own inhibitors are not the tests'."""
    path = write("bin/busctl", "exit 1")
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def policy(tmp_path: Path, **settings: object) -> Policy:
    return Policy(
        settings=Settings(**settings),  # type: ignore[arg-type]
        directories=(str(tmp_path),),
        command=("touch", f"{tmp_path}/rebooted"),
    )


def test_by_default_people_reboot(tmp_path: Path) -> None:
    assert policy(tmp_path).hold() == "reboots are left to people"


def test_an_idle_system_reboots_and_a_busy_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = policy(tmp_path, reboot=Reboot.IDLE)
    for load, expected in ((0.0, ""), (64.0 * 64, "the system is not idle")):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (0.0, load, 0.0))
        assert idle.hold().startswith(expected)
        assert bool(idle.hold()) is bool(expected)


@pytest.mark.parametrize(
    "window, now, expected",
    [
        ("11:30-12:30", NOON, ""),
        ("12:00-12:01", NOON, ""),
        ("11:00-12:00", NOON, "the window is"),
        ("22:00-04:00", NOON, "the window is"),
        ("22:00-04:00", NOON + 11 * 3600, ""),
        ("22:00-04:00", NOON + 15 * 3600, ""),
        ("00:00-23:59", 0.0, "the clock is not set"),
        ("25:00-26:00", NOON, "is none"),
        ("", NOON, "is none"),
    ],
)
def test_a_window_is_by_local_time_and_by_a_clock_that_was_set(
    window: str, now: float, expected: str
) -> None:
    said = outside_window(window, now)
    assert expected in said
    assert bool(said) is bool(expected)


def test_hooks_put_a_reboot_off_with_a_reason(
    tmp_path: Path, write: WriteScript
) -> None:
    always = policy(tmp_path, reboot=Reboot.COMMAND, command=("true",))
    assert always.hold() == ""
    write("inhibit.d/10-quiet", "exit 0")
    assert always.hold() == ""
    path = write("inhibit.d/20-press", "echo the press is closed; exit 1")
    assert always.hold() == f"{path} ended with status 1: the press is closed"


def answer(*rows: tuple[object, ...]) -> str:
    return json.dumps({"type": "a(ssssuu)", "data": [rows]})


def test_systemds_inhibitors_put_it_off_if_they_block(
    tmp_path: Path, write: WriteScript
) -> None:
    rows = (
        ("sleep", "a", "no matter", "block", 0, 1),
        ("shutdown:sleep", "b", "only later", "delay", 0, 1),
        ("idle:shutdown", "cnc", "a part is being cut", "block", 0, 1),
    )
    write("bin/busctl", f"cat <<'END'\n{answer(*rows)}\nEND")
    always = policy(tmp_path, reboot=Reboot.COMMAND, command=("true",))
    assert always.hold() == "cnc asks for no shutdown: a part is being cut"
    write("bin/busctl", f"cat <<'END'\n{answer()}\nEND")
    assert always.hold() == ""


def test_without_systemd_nobody_inhibits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(inhibitors()) == []


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"data": []}', b"nonsense", b'{"data": [[1]]}']
)
def test_a_list_that_is_not_known_puts_it_off(data: bytes) -> None:
    (said,) = parse_inhibitors(data)
    assert "not known" in said


def test_a_system_is_drained_before_its_reboot(
    tmp_path: Path, write: WriteScript
) -> None:
    write("drain.d/10", f"touch {tmp_path}/drained")
    policy(tmp_path).reboot()
    assert (tmp_path / "drained").exists()
    assert (tmp_path / "rebooted").exists()


def test_who_cannot_be_drained_is_not_rebooted(
    tmp_path: Path, write: WriteScript
) -> None:
    write("drain.d/10", "echo still busy; exit 1")
    with pytest.raises(DeployError, match=r"no reboot: .* still busy"):
        policy(tmp_path).reboot()
    assert not (tmp_path / "rebooted").exists()


def test_a_command_may_be_run_instead(tmp_path: Path) -> None:
    mark = tmp_path / "asked"
    command = ("touch", str(mark))
    policy(tmp_path, reboot=Reboot.COMMAND, command=command).reboot()
    assert mark.exists()
    assert not (tmp_path / "rebooted").exists()
    with pytest.raises(DeployError, match="no reboot: `false` ended with status 1"):
        policy(tmp_path, reboot=Reboot.COMMAND, command=("false",)).reboot()


def test_what_waits_for_an_update_is_run_and_told_of(
    tmp_path: Path, write: WriteScript
) -> None:
    write("ready.d/10", f"touch {tmp_path}/told")
    path = write("ready.d/20", "exit 2")
    assert policy(tmp_path).ready() == (f"{path} ended with status 2",)
    assert (tmp_path / "told").exists()


# -- as an option ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        Settings(units=("a.service",)),
        Settings(reboot=Reboot.WINDOW, window="01:00-02:00", each_seconds=1.5),
        Settings(reboot=Reboot.COMMAND, command=("a", "b c")),
    ],
)
def test_settings_pass_a_command_line(settings: Settings) -> None:
    (option,) = settings.options()
    assert parse_settings(option.removeprefix("--settings=")) == settings
    assert Settings().options() == ()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"other": 1}', '{"reboot": "often"}', '{"units": 7}']
)
def test_settings_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--settings"):
        parse_settings(text)
