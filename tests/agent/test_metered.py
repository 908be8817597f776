"""What network managers say is metered, in the words of `busctl`."""

import json
import os
from pathlib import Path

import pytest

from p2p.agent.doctor.finding import Level
from p2p.agent.doctor.metering import check_metered
from p2p.agent.metered import (
    Metered,
    cellular_of_connman,
    metered_of_network_manager,
    parse_answer,
    read_metered,
)

NM = "org.freedesktop.NetworkManager"


def variant(value: object) -> dict[str, object]:
    return {"type": "?", "data": value}


def device(name: str, metered: int) -> dict[str, object]:
    properties = {"Interface": variant(name), "Metered": variant(metered)}
    return {f"{NM}.Device": properties, f"{NM}.Device.Wired": {}}


OBJECTS = {
    "/org/freedesktop/NetworkManager": {NM: {"Metered": variant(4)}},
    "/org/freedesktop/NetworkManager/Devices/1": device("lo", 0),
    "/org/freedesktop/NetworkManager/Devices/2": device("eth0", 2),
    "/org/freedesktop/NetworkManager/Devices/3": device("wlan0", 1),
    "/org/freedesktop/NetworkManager/Devices/4": device("wwan0", 3),
    "/org/freedesktop/NetworkManager/Devices/5": device("usb0", 4),
}
SERVICES = [
    [
        "/net/connman/service/cellular_1",
        {
            "Type": variant("cellular"),
            "Ethernet": variant({"Interface": variant("wwan0")}),
        },
    ],
    [
        "/net/connman/service/ethernet_2",
        {
            "Type": variant("ethernet"),
            "Ethernet": variant({"Interface": variant("eth0")}),
        },
    ],
]


def test_what_is_metered_or_guessed_so_counts() -> None:
    assert metered_of_network_manager(OBJECTS) == (["wlan0", "wwan0"], False)
    uplink = {"/": {NM: {"Metered": variant(1)}}}
    assert metered_of_network_manager(uplink) == ([], True)


def test_what_is_cellular_counts() -> None:
    assert cellular_of_connman(SERVICES) == ["wwan0"]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"data": 1}', b'{"data": []}', b"\xff", b"[" * 9999]
)
def test_what_is_no_answer_says_nothing(data: bytes) -> None:
    assert parse_answer(data) is None


@pytest.mark.parametrize("value", [None, 1, [1], {"a": 1}, {"a": {NM: 1}}, [["a", {}]]])
def test_answers_of_another_form_say_nothing(value: object) -> None:
    assert metered_of_network_manager(value) == ([], False)
    assert cellular_of_connman(value) == []


@pytest.fixture
def busctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in front of PATH, for a program in place of the system's bus."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "busctl"


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


async def test_the_system_is_asked_and_the_user_adds_to_it(busctl: Path) -> None:
    (busctl.parent / "nm").write_text(json.dumps({"type": "?", "data": [OBJECTS]}))
    script(
        busctl,
        f'case "$*" in *{NM}*) cat {busctl.parent}/nm;; *) exit 1;; esac',
    )
    found = await read_metered(["eth0", "eth1", "wlan0"], ["eth?"])
    assert found.interfaces == {
        "wlan0": "NetworkManager",
        "wwan0": "NetworkManager",
        "eth0": "metered-interfaces",
        "eth1": "metered-interfaces",
    }
    assert found.told_by == ("NetworkManager",)


async def test_where_nobody_answers_only_the_users_word_counts(busctl: Path) -> None:
    script(busctl, "echo no bus >&2; exit 1")
    found = await read_metered(["eth0"], [])
    assert found == Metered()


@pytest.mark.parametrize(
    "metered, allowed, level, words",
    [
        (Metered(), False, Level.OK, "what nobody calls metered is not"),
        (
            Metered(
                interfaces={"wwan0": "NetworkManager"}, told_by=("NetworkManager",)
            ),
            False,
            Level.OK,
            "wwan0 (NetworkManager); NetworkManager",
        ),
        (Metered(uplink="wwan0 is metered"), False, Level.WARN, "wwan0 is metered"),
        (Metered(uplink="wwan0 is metered"), True, Level.OK, "used all the same"),
    ],
)
def test_the_doctor_says_what_is_known(
    metered: Metered, allowed: bool, level: Level, words: str
) -> None:
    finding = check_metered(metered, allowed=allowed)
    assert finding.level is level
    assert words in finding.message
