"""What an agent remembers survives restarts, older versions and damage."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from p2p.agent.config import Follow
from p2p.agent.state import MAX_UPDATES, State, StateFile, Update, decode, encode
from p2p.errors import FormatError, RepositoryError

UPDATE = Update(time=5.0, refspec="hub:os", commit="a" * 64, peer_bytes=7)
STATE = State(
    enabled=True,
    follows={"hub:os": Follow(remote="hub", ref="os", deploy=True)},
    confirmed={"hub:os": 4.0},
    rolled_back=["b" * 64],
    updates=[UPDATE],
)


def test_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    file = StateFile(str(tmp_path / "state"))
    assert file.state == State()
    file.state = STATE
    file.save()
    assert StateFile(str(tmp_path / "state")).state == STATE


def test_what_a_newer_version_added_is_ignored() -> None:
    record = json.loads(encode(STATE))
    record |= {"version": 2, "mood": "good"}
    record["updates"][0]["colour"] = "blue"
    record["follows"][0]["colour"] = "blue"
    assert decode(json.dumps(record).encode()) == STATE


def test_what_an_older_version_did_not_know_has_its_default() -> None:
    assert decode(b"{}") == State()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        b'{"enabled": 1}',
        b'{"follows": {}}',
        b'{"follows": [{"ref": "nothing", "deploy": true}]}',
        b'{"follows": [7]}',
        b'{"confirmed": {"a:b": "soon"}}',
        b'{"updates": [7]}',
        b'{"rolled_back": [7]}',
        b'{"updates": [{}]}',
        b" " * (4 << 20) + b"{}",
    ],
)
def test_damage_is_set_aside_and_said(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data)
    (tmp_path / "agent.json").write_bytes(data)
    file = StateFile(str(tmp_path))
    assert file.state == State()
    assert file.replaced
    assert (tmp_path / "agent.json.damaged").read_bytes() == data


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match="file"):
        StateFile(str(tmp_path / "file" / "state"))


def test_only_so_many_updates_are_kept_and_like_failures_once() -> None:
    state = State()
    failed = Update(time=1.0, refspec="a:b", error="TransportError", message="away")
    state.note(failed)
    state.note(replace(failed, time=2.0))
    assert [update.time for update in state.updates] == [2.0]
    for number in range(MAX_UPDATES + 3):
        state.note(replace(UPDATE, time=float(number)))
    assert len(state.updates) == MAX_UPDATES
    assert state.updates[0].time == 3.0
