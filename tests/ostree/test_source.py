"""The directory to commit: what is read of it, and what stops a commit."""

import os
import socket
from pathlib import Path

import pytest

from p2p.errors import SourceTreeError
from p2p.ostree.source import SMALL_BYTES, Source, SourceFile, SourceOptions
from tests.ostree.samples import file_object

UID, GID = os.geteuid(), os.getegid()


def source(path: Path, options: SourceOptions | None = None) -> Source:
    return Source(str(path), options or SourceOptions())


def read(path: Path, options: SourceOptions | None = None) -> SourceFile:
    """The only file of a directory."""
    found = source(path, options)
    (directory,) = found.directories()
    (name,) = directory.files
    return found.read(directory, name)


def test_directories_come_before_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "z").mkdir()
    (tmp_path / "a/file").touch()
    (tmp_path / "a/link").symlink_to("file")
    found = list(source(tmp_path).directories())
    paths = [directory.inside for directory in found]
    assert paths.index("/") < paths.index("/a") < paths.index("/a/b")
    assert set(paths) == {"/", "/a", "/a/b", "/a/b/c", "/z"}
    (a,) = (directory for directory in found if directory.inside == "/a")
    assert (sorted(a.files), a.dirs) == (["file", "link"], ["b"])
    assert a.path == str(tmp_path / "a")


def test_a_file_is_read_with_all_that_its_inode_says(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "x").chmod(0o640)
    os.setxattr(tmp_path / "x", "user.b", b"2")
    os.setxattr(tmp_path / "x", "user.a", b"1")
    file = read(tmp_path)
    header = file.header
    assert (file.data, file.size) == (b"content", 7)
    assert (header.uid, header.gid, header.mode) == (UID, GID, 0o100640)
    assert header.xattrs == ((b"user.a", b"1"), (b"user.b", b"2"))
    assert read(tmp_path, SourceOptions(xattrs=False)).header.xattrs == ()


def test_a_link_is_read_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("/etc/passwd")
    file = read(tmp_path)
    assert file.header.symlink_target == "/etc/passwd"
    assert (file.data, file.size) == (b"", 11)


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(SMALL_BYTES + 1)
    (tmp_path / "x").write_bytes(content)
    found = source(tmp_path)
    (directory,) = found.directories()
    file = found.read(directory, "x")
    assert file.data is None
    assert b"".join(found.pieces(file)) == content


def test_owners_and_modes_are_changed_as_told(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "x").chmod(0o6777)
    given = read(tmp_path, SourceOptions(owner_uid=5, owner_gid=6)).header
    assert (given.uid, given.gid, given.mode) == (5, 6, 0o106777)
    canonical = read(tmp_path, SourceOptions(canonical_permissions=True)).header
    assert (canonical.uid, canonical.gid, canonical.mode) == (0, 0, 0o100755)
    added = read(tmp_path, SourceOptions(add_modes={"/x": 0o1000})).header
    assert added.mode == 0o107777
    put = read(tmp_path, SourceOptions(set_modes={"/x": 0o600})).header
    assert put.mode == 0o100600
    (tmp_path / "x").unlink()
    (tmp_path / "x").symlink_to("y")
    link = read(tmp_path, SourceOptions(canonical_permissions=True)).header
    assert link.mode == 0o120777


def test_skipped_paths_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/c").touch()
    options = SourceOptions(skip=frozenset({"/a/b", "/a/c"}))
    root, a = source(tmp_path, options).directories()
    assert (root.dirs, a.files, a.dirs) == (["a"], [], [])


@pytest.mark.parametrize(
    "options",
    [
        SourceOptions(skip=frozenset({"/no"})),
        SourceOptions(add_modes={"/no": 1}),
        SourceOptions(set_modes={"/no": 1}),
    ],
)
def test_a_path_to_change_must_exist(tmp_path: Path, options: SourceOptions) -> None:
    with pytest.raises(SourceTreeError, match="there is no /no"):
        list(source(tmp_path, options).directories())


def test_the_root_may_be_changed_too(tmp_path: Path) -> None:
    options = SourceOptions(set_modes={"/": 0o711})
    (root,) = source(tmp_path, options).directories()
    assert root.meta.mode == 0o040711


def test_hard_links_are_known_again(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    os.link(tmp_path / "x", tmp_path / "y")
    found = source(tmp_path)
    (directory,) = found.directories()
    first = found.read(directory, "x")
    assert first.inode is not None
    assert first.checksum is None
    name, _ = file_object(b"content")
    found.links[first.inode] = name.checksum
    second = found.read(directory, "y")
    assert second.checksum == name.checksum
    # Not where the two names are given different modes.
    options = SourceOptions(set_modes={"/y": 0o600})
    assert source(tmp_path, options).read(directory, "y").inode is None


def make_odd(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
    else:
        os.mknod(path, 0o020600, os.makedev(1, 3))


@pytest.mark.parametrize(
    "kind",
    ["fifo", "socket", pytest.param("device", marks=pytest.mark.root)],
)
def test_what_ostree_cannot_keep_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "below").mkdir()
    make_odd(tmp_path / "below/odd", kind)
    with pytest.raises(SourceTreeError, match="below/odd: is no regular file"):
        list(source(tmp_path).directories())


def test_a_file_that_became_a_pipe_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    found = source(tmp_path)
    (directory,) = found.directories()
    (tmp_path / "x").unlink()
    os.mkfifo(tmp_path / "x")
    with pytest.raises(SourceTreeError, match="is no regular file"):
        found.read(directory, "x")


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_names_must_be_text(tmp_path: Path, kind: str) -> None:
    name = os.fsencode(tmp_path) + b"/bad\xff"
    if kind == "file":
        os.close(os.open(name, os.O_CREAT))
    else:
        os.mkdir(name)
    with pytest.raises(SourceTreeError, match=r"bad\\xff.*not UTF-8"):
        list(source(tmp_path).directories())


def test_targets_of_links_must_be_text(tmp_path: Path) -> None:
    os.symlink(b"bad\xff", os.fsencode(tmp_path / "x"))
    with pytest.raises(SourceTreeError, match="not UTF-8"):
        read(tmp_path)


def test_what_vanished_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "d").mkdir()
    found = source(tmp_path)
    walk = found.directories()
    directory = next(walk)
    (tmp_path / "x").unlink()
    (tmp_path / "d").rmdir()
    with pytest.raises(SourceTreeError, match="x: No such file"):
        found.read(directory, "x")
    with pytest.raises(SourceTreeError, match="d: No such file"):
        next(walk)
    with pytest.raises(SourceTreeError, match="nowhere: No such file"):
        list(source(tmp_path / "nowhere").directories())


def test_a_file_is_no_tree(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(SourceTreeError, match="Not a directory"):
        list(source(tmp_path / "x").directories())


@pytest.mark.parametrize("times, whole", [(2, True), (3, False)])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, whole: bool
) -> None:
    (tmp_path / "x").write_bytes(b"first")
    real = os.read
    left = [times]

    def read_and_change(fd: int, size: int) -> bytes:
        data = real(fd, size)
        if left[0]:
            left[0] -= 1
            (tmp_path / "x").write_bytes(b"later" + bytes(left[0]))
        return data

    monkeypatch.setattr(os, "read", read_and_change)
    if whole:
        assert read(tmp_path).data == b"later"
    else:
        with pytest.raises(SourceTreeError, match="changed while it was read"):
            read(tmp_path)


def test_a_file_that_grows_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"short")
    real = os.read
    grown: list[bool] = []

    def grow_first(fd: int, size: int) -> bytes:
        if not grown:
            grown.append(True)
            (tmp_path / "x").write_bytes(b"much longer")
        return real(fd, size)

    monkeypatch.setattr(os, "read", grow_first)
    assert read(tmp_path).data == b"much longer"


def test_a_large_file_that_changes_between_its_readings_is_an_error(
    tmp_path: Path,
) -> None:
    (tmp_path / "x").write_bytes(bytes(SMALL_BYTES + 1))
    found = source(tmp_path)
    (directory,) = found.directories()
    file = found.read(directory, "x")
    (tmp_path / "x").write_bytes(bytes(SMALL_BYTES + 2))
    with pytest.raises(SourceTreeError, match="changed while it was read"):
        list(found.pieces(file))
    (tmp_path / "x").unlink()
    with pytest.raises(SourceTreeError, match="No such file"):
        list(found.pieces(file))
