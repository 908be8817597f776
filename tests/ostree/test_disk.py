"""Small files written durably, and what the disk says in our words."""

import errno
import os
from pathlib import Path

import pytest

from p2p.errors import NoSpaceError, ReadOnlyError, RepositoryError
from p2p.ostree.disk import (
    disk_error,
    sync_directory,
    sync_file,
    sync_filesystem,
    syncfs,
    write_file,
    writing,
)


@pytest.mark.parametrize("fsync", [True, False])
def test_a_file_is_replaced_whole(tmp_path: Path, fsync: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old and longer")
    write_file(str(path), b"new", fsync=fsync)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(str(tmp_path / "directory"), b"x", fsync=False)
    assert os.listdir(tmp_path) == ["directory"]


def test_everything_can_be_made_durable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    sync_file(str(tmp_path / "file"))
    sync_file(str(tmp_path / "link"))
    sync_directory(str(tmp_path))
    sync_filesystem(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        sync_file(str(tmp_path / "gone"))


def test_a_failed_sync_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        syncfs(-1)


@pytest.mark.parametrize(
    "number, kind",
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EROFS, ReadOnlyError),
        (errno.EACCES, ReadOnlyError),
        (errno.EPERM, ReadOnlyError),
        (errno.EIO, RepositoryError),
    ],
)
def test_what_the_disk_says_is_told_with_its_path(
    number: int, kind: type[RepositoryError]
) -> None:
    error = OSError(number, os.strerror(number), "/some/file")
    with pytest.raises(kind, match=f"/some/file: {os.strerror(number)}"), writing("/r"):
        raise error
    assert str(disk_error("/repo", OSError(number, "bad"))) == "/repo: bad"
