"""The repository's lock: shared by many, exclusive to one, with a limit to waiting."""

import os
import threading
from pathlib import Path

import pytest

from p2p.errors import LockedError
from p2p.ostree.lock import locked, open_lock, try_lock


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / ".lock")


def test_readers_share_and_a_writer_waits(path: str) -> None:
    with (
        locked(path, exclusive=False, timeout_seconds=0),
        locked(path, exclusive=False, timeout_seconds=0),
        pytest.raises(LockedError, match="still locked"),
        locked(path, exclusive=True, timeout_seconds=0),
    ):
        pass
    with locked(path, exclusive=True, timeout_seconds=0):
        pass


def test_a_writer_keeps_everybody_out(path: str) -> None:
    with locked(path, exclusive=True, timeout_seconds=0):
        for exclusive in (True, False):
            with pytest.raises(LockedError):
                open_lock(path, exclusive=exclusive, timeout_seconds=0.05)


@pytest.mark.parametrize("timeout", [-1, 60])
def test_whoever_waits_gets_the_lock_when_it_is_free(path: str, timeout: int) -> None:
    first = open_lock(path, exclusive=True, timeout_seconds=0)
    got = []

    def wait() -> None:
        with locked(path, exclusive=False, timeout_seconds=timeout):
            got.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    os.close(first)
    thread.join(timeout=60)
    assert got == [True]


def test_a_lock_goes_with_its_descriptor(path: str) -> None:
    fd = open_lock(path, exclusive=True, timeout_seconds=0)
    os.close(fd)
    with locked(path, exclusive=True, timeout_seconds=0):
        assert Path(path).stat().st_size == 0


def test_an_error_that_is_no_conflict_comes_through(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            try_lock(fd, exclusive=True)
    finally:
        os.close(fd)
    with pytest.raises(NotADirectoryError):
        open_lock(f"{path}/nowhere/x", exclusive=True, timeout_seconds=0)
