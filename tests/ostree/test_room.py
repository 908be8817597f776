"""Scratch directories that tell the dead from the living."""

import os
from pathlib import Path

import pytest

from p2p.ostree.room import Room


def rooms(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.glob("work-*"))


def test_names_are_new_and_go_with_the_room(tmp_path: Path) -> None:
    room = Room(str(tmp_path / "tmp"), "work-")
    paths = {room.new_path() for _ in range(10)}
    assert len(paths) == 10
    for path in paths:
        Path(path).touch()
    room.close()
    assert rooms(tmp_path / "tmp") == []


def test_a_new_room_clears_dead_ones_and_no_living_one(tmp_path: Path) -> None:
    living = Room(str(tmp_path), "work-")
    dead = tmp_path / "work-dead"
    dead.mkdir()
    (dead / ".lock").touch()
    (dead / "7").write_bytes(b"half")
    (tmp_path / "work-died-at-once").mkdir()
    (tmp_path / "other").mkdir()
    newest = Room(str(tmp_path), "work-")
    assert not dead.exists()
    assert (tmp_path / "other").exists()
    assert len(rooms(tmp_path)) == 2
    living.close()
    newest.close()


def test_a_room_that_was_taken_for_dead_is_made_again(tmp_path: Path) -> None:
    room = Room(str(tmp_path), "work-")
    first = room.new_path()
    room.renew()
    assert os.path.dirname(room.new_path()) == os.path.dirname(first)
    (tmp_path / rooms(tmp_path)[0] / ".lock").unlink()
    (tmp_path / rooms(tmp_path)[0]).rmdir()
    with pytest.raises(FileNotFoundError):
        Path(room.new_path()).touch()
    room.renew()
    Path(room.new_path()).touch()
    room.close()
    assert rooms(tmp_path) == []
