"""File objects on disk in every mode: written, read back, damaged."""

import os
import random
import stat
import zlib
from pathlib import Path

import pytest

from p2p.errors import DamagedObjectError, FormatError, RepositoryError
from p2p.ostree.config import RepoMode
from p2p.ostree.content import (
    MAX_CONTENT_BYTES,
    OSTREEMETA,
    ContentStyle,
    PlainWriter,
    read_xattrs,
)
from p2p.ostree.gvariant import codec
from p2p.ostree.objects import Checksum, FileHeader, checksum_of, serialize_inode

ROOT = os.geteuid() == 0
UID, GID = os.geteuid(), os.getegid()
CONTENT = b"some content\n" * 100
HELLO = FileHeader(UID, GID, 0o100755, "", ((b"user.a", b"1"), (b"user.b", b"22")))
LINK = FileHeader(UID, GID, 0o120777, "the/target")
PLAIN = FileHeader(0, 0, 0o100644)
PLAIN_LINK = FileHeader(0, 0, 0o120777, "the/target")

STYLES = {
    "archive": (RepoMode.ARCHIVE, HELLO, LINK),
    "bare": (RepoMode.BARE, HELLO, LINK),
    "bare-user": (RepoMode.BARE_USER, HELLO, LINK),
    "bare-user-only": (RepoMode.BARE_USER_ONLY, PLAIN, PLAIN_LINK),
}


def write(style: ContentStyle, path: Path, header: FileHeader, data: bytes) -> None:
    writer = style.create(str(path), header, len(data))
    for start in range(0, len(data), 100):
        writer.write(data[start : start + 100])
    writer.finish()


@pytest.mark.parametrize("name", STYLES)
def test_a_file_is_read_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    mode, header, _ = STYLES[name]
    style = ContentStyle(mode)
    path = tmp_path / "x.file"
    write(style, path, header, CONTENT)
    with style.open(str(path)) as reader:
        assert reader.header == header
        assert reader.size == len(CONTENT)
        assert b"".join(reader.canonical()) == header.frame() + CONTENT
    with style.open(str(path)) as reader:
        reader.check(checksum_of(header.frame() + CONTENT), str(path))


def test_large_content_that_does_not_pack_is_read_back(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(600_000)
    writer = ContentStyle(RepoMode.ARCHIVE).create(
        str(tmp_path / "x"), PLAIN, len(noise)
    )
    writer.write(noise)
    writer.finish()
    with ContentStyle(RepoMode.ARCHIVE).open(str(tmp_path / "x")) as reader:
        assert b"".join(reader.content()) == noise


@pytest.mark.parametrize("name", STYLES)
def test_an_empty_file_is_read_back(tmp_path: Path, name: str) -> None:
    mode, header, _ = STYLES[name]
    style = ContentStyle(mode)
    write(style, tmp_path / "x.file", header, b"")
    with style.open(str(tmp_path / "x.file")) as reader:
        assert reader.checksum() == checksum_of(header.frame())


@pytest.mark.parametrize("name", STYLES)
def test_a_link_is_read_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    mode, _, header = STYLES[name]
    style = ContentStyle(mode)
    path = tmp_path / "x.file"
    write(style, path, header, b"")
    real = mode in (RepoMode.BARE, RepoMode.BARE_USER_ONLY)
    assert path.is_symlink() is real
    with style.open(str(path)) as reader:
        assert (reader.header, reader.size) == (header, 0)
        assert list(reader.content()) == []
        assert reader.checksum() == checksum_of(header.frame())


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("kind", [1, 2])
def test_what_is_discarded_is_gone(tmp_path: Path, name: str, kind: int) -> None:
    header = STYLES[name][kind]
    assert isinstance(header, FileHeader)
    writer = ContentStyle(STYLES[name][0]).create(str(tmp_path / "x"), header, 4)
    if kind == 1:
        writer.write(b"data")
    writer.discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "mode, header, expected",
    [
        (RepoMode.ARCHIVE, HELLO, 0o644),
        (RepoMode.BARE, HELLO, 0o755),
        (RepoMode.BARE_USER, FileHeader(5, 6, 0o107777), 0o775),
        (RepoMode.BARE_USER, FileHeader(5, 6, 0o100000), 0o400),
        (RepoMode.BARE_USER, LINK, 0o644),
        (RepoMode.BARE_USER_ONLY, PLAIN, 0o644),
    ],
)
def test_inodes_have_the_modes_and_times_of_libostree(
    tmp_path: Path, mode: RepoMode, header: FileHeader, expected: int
) -> None:
    path = tmp_path / "x"
    write(ContentStyle(mode), path, header, b"" if header.is_symlink else b"x")
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == expected
    assert (status.st_mtime == 0) is (mode is not RepoMode.ARCHIVE)


def test_bare_user_keeps_what_any_user_may_not_set(tmp_path: Path) -> None:
    header = FileHeader(5, 6, 0o104755, "", ((b"security.capability", b"x"),))
    style = ContentStyle(RepoMode.BARE_USER)
    write(style, tmp_path / "x", header, CONTENT)
    with style.open(str(tmp_path / "x")) as reader:
        assert reader.header == header
    assert (tmp_path / "x").stat().st_uid == UID


def test_the_level_of_an_archive_is_the_repositorys(tmp_path: Path) -> None:
    for level in (1, 9):
        write(
            ContentStyle(RepoMode.ARCHIVE, zlib_level=level),
            tmp_path / str(level),
            PLAIN,
            CONTENT,
        )
        deflater = zlib.compressobj(level, zlib.DEFLATED, -15)
        packed = deflater.compress(CONTENT) + deflater.flush()
        assert (tmp_path / str(level)).read_bytes().endswith(packed)


@pytest.mark.parametrize(
    "header, reason",
    [
        (FileHeader(0, 0, 0o104755), "mode 4755"),
        (FileHeader(0, 0, 0o100666), "mode 666"),
        (FileHeader(1, 0, 0o100644), "owned by 1:0"),
        (FileHeader(0, 1, 0o120777, "x"), "owned by 0:1"),
        (FileHeader(0, 0, 0o100644, "", ((b"user.a", b"1"),)), "with xattrs"),
    ],
)
def test_bare_user_only_refuses_what_it_would_forget(
    tmp_path: Path, header: FileHeader, reason: str
) -> None:
    style = ContentStyle(RepoMode.BARE_USER_ONLY)
    with pytest.raises(RepositoryError, match=reason):
        style.create(str(tmp_path / "x"), header, 0)
    assert os.listdir(tmp_path) == []


def test_split_xattrs_are_only_read(tmp_path: Path) -> None:
    style = ContentStyle(RepoMode.BARE_SPLIT_XATTRS)
    with pytest.raises(RepositoryError, match="only read"):
        style.create(str(tmp_path / "x"), PLAIN, 0)
    (tmp_path / "x.file").write_bytes(CONTENT)
    (tmp_path / "x.file").chmod(0o755)
    pairs = tuple((name + b"\0", value) for name, value in HELLO.xattrs)
    (tmp_path / "x.file-xattrs-link").write_bytes(codec("a(ayay)").encode(pairs))
    with style.open(str(tmp_path / "x.file")) as reader:
        assert reader.checksum() == checksum_of(HELLO.frame() + CONTENT)


def test_without_xattrs_none_are_read(tmp_path: Path) -> None:
    write(ContentStyle(RepoMode.BARE), tmp_path / "x", HELLO, CONTENT)
    with ContentStyle(RepoMode.BARE, disable_xattrs=True).open(
        str(tmp_path / "x")
    ) as r:
        assert r.header.xattrs == ()


def test_a_link_takes_no_content(tmp_path: Path) -> None:
    writer = ContentStyle(RepoMode.BARE_USER_ONLY).create(
        str(tmp_path / "x"), PLAIN_LINK, 0
    )
    with pytest.raises(FormatError, match="with 1 bytes"):
        writer.write(b"x")
    archive = ContentStyle(RepoMode.ARCHIVE).create(str(tmp_path / "y"), PLAIN_LINK, 0)
    archive.write(b"")
    archive.finish()


def test_what_is_finished_can_still_be_discarded(tmp_path: Path) -> None:
    writer = PlainWriter(str(tmp_path / "x"))
    writer.finish()
    writer.discard()
    assert os.listdir(tmp_path) == []


def test_an_existing_file_is_never_opened_for_writing(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a file of the running system")
    for mode, header in ((RepoMode.BARE_USER, PLAIN), (RepoMode.BARE, LINK)):
        with pytest.raises(FileExistsError):
            ContentStyle(mode).create(str(tmp_path / "x"), header, 0)
    assert (tmp_path / "x").read_bytes() == b"a file of the running system"


@pytest.mark.parametrize("mode", [RepoMode.ARCHIVE, RepoMode.BARE_USER])
def test_a_header_that_cannot_be_written_leaves_no_file(
    tmp_path: Path, mode: RepoMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        ContentStyle(mode).create(str(tmp_path / "x"), PLAIN_LINK, 0)
    assert os.listdir(tmp_path) == []


def test_a_short_write_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    writer = PlainWriter(str(tmp_path / "x"))
    writer.write(CONTENT)
    writer.finish()
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_an_xattr_that_cannot_be_set_is_an_error_not_a_loss(tmp_path: Path) -> None:
    header = FileHeader(UID, GID, 0o100644, "", ((b"nonsense.name", b"1"),))
    writer = ContentStyle(RepoMode.BARE).create(str(tmp_path / "x"), header, 0)
    with pytest.raises(RepositoryError, match=r"nonsense\.name cannot be set"):
        writer.finish()


def test_a_full_disk_while_setting_xattrs_stays_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "setxattr", full)
    writer = ContentStyle(RepoMode.BARE_USER).create(str(tmp_path / "x"), PLAIN, 0)
    with pytest.raises(OSError, match="No space"):
        writer.finish()


@pytest.mark.parametrize(
    "header", [FileHeader(1, 1, 0o100644), FileHeader(1, 1, 0o120777, "x")]
)
def test_giving_files_away_needs_root(
    tmp_path: Path, header: FileHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "lchown", refuse)
    writer = ContentStyle(RepoMode.BARE).create(str(tmp_path / "x"), header, 0)
    with pytest.raises(RepositoryError, match="only root may give a file to 1:1"):
        writer.finish()


@pytest.mark.root
def test_bare_keeps_owner_setuid_and_capabilities_in_the_inode(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    header = FileHeader(5, 6, 0o104755, "", ((b"security.capability", capability),))
    style = ContentStyle(RepoMode.BARE)
    write(style, tmp_path / "x", header, CONTENT)
    status = (tmp_path / "x").stat()
    assert (status.st_uid, status.st_gid) == (5, 6)
    with style.open(str(tmp_path / "x")) as reader:
        assert reader.header == header
    link = FileHeader(5, 6, 0o120777, "x", ((b"trusted.a", b"1"),))
    write(style, tmp_path / "y", link, b"")
    with style.open(str(tmp_path / "y")) as reader:
        assert reader.header == link


# -- what is not what it says --------------------------------------------------


def packed(tmp_path: Path) -> Path:
    path = tmp_path / "x"
    write(ContentStyle(RepoMode.ARCHIVE), path, PLAIN, CONTENT)
    return path


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "shorter than its frame"),
        (b"\0\0\0", "shorter than its frame"),
        (b"\0\0\0\x1a\0\0\0\0short", "GVariant|bounds"),
        (PLAIN.serialize_filez(MAX_CONTENT_BYTES + 1), "claims"),
        (PLAIN_LINK.serialize_filez(0) + b"x", "with content"),
    ],
)
def test_a_broken_header_of_an_archive_is_refused(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError, match=reason):
        ContentStyle(RepoMode.ARCHIVE).open(str(tmp_path / "x"))


@pytest.mark.parametrize(
    "cut, reason", [(3, "within its deflate"), (0, "has the checksum")]
)
def test_broken_or_other_content_is_damage(
    tmp_path: Path, cut: int, reason: str
) -> None:
    path = packed(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut])
    with (
        ContentStyle(RepoMode.ARCHIVE).open(str(path)) as reader,
        pytest.raises(DamagedObjectError, match=reason),
    ):
        reader.check(Checksum("a" * 64), "x")


def test_a_file_that_changes_its_size_while_read_is_noticed(tmp_path: Path) -> None:
    style = ContentStyle(RepoMode.BARE_USER_ONLY)
    write(style, tmp_path / "x", PLAIN, CONTENT)
    with style.open(str(tmp_path / "x")) as reader:
        os.truncate(tmp_path / "x", 10)
        with pytest.raises(FormatError, match="changed its size"):
            list(reader.content())


def test_a_bare_user_file_needs_its_attribute(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(FormatError, match=OSTREEMETA):
        ContentStyle(RepoMode.BARE_USER).open(str(tmp_path / "x"))


@pytest.mark.parametrize("target", [b"", b"a\0b", b"\0"])
def test_a_bare_user_link_needs_a_usable_target(tmp_path: Path, target: bytes) -> None:
    (tmp_path / "x").write_bytes(target)
    os.setxattr(tmp_path / "x", OSTREEMETA, serialize_inode(0, 0, 0o120777, ()))
    with pytest.raises(FormatError, match="usable target"):
        ContentStyle(RepoMode.BARE_USER).open(str(tmp_path / "x"))


def test_a_bare_user_link_may_lack_its_nul(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"target")
    os.setxattr(tmp_path / "x", OSTREEMETA, serialize_inode(0, 0, 0o120777, ()))
    with ContentStyle(RepoMode.BARE_USER).open(str(tmp_path / "x")) as reader:
        assert reader.header.symlink_target == "target"


@pytest.mark.parametrize("mode", [RepoMode.BARE, RepoMode.BARE_USER, RepoMode.ARCHIVE])
def test_a_directory_is_no_object(tmp_path: Path, mode: RepoMode) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises((FormatError, IsADirectoryError)):
        ContentStyle(mode).open(str(tmp_path / "x"))


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    for mode in RepoMode:
        with pytest.raises(FileNotFoundError):
            ContentStyle(mode).open(str(tmp_path / "x"))


def test_empty_xattrs_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    os.setxattr(tmp_path / "x", "user.empty", b"")
    os.setxattr(tmp_path / "x", "user.full", b"1")
    assert read_xattrs(str(tmp_path / "x")) == ((b"user.full", b"1"),)


def test_where_there_are_no_xattrs_none_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(number: int) -> None:
        def listxattr(*_args: object, **_options: object) -> list[str]:
            raise OSError(number, "refused")

        monkeypatch.setattr(os, "listxattr", listxattr)

    refuse(95)  # ENOTSUP
    assert read_xattrs(str(tmp_path)) == ()
    refuse(5)  # EIO
    with pytest.raises(OSError, match="refused"):
        read_xattrs(str(tmp_path))
