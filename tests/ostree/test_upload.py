"""Objects that arrive in pieces: whole at the end, or nothing."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2p.errors import Error, FormatError, IntegrityError, NoSpaceError
from p2p.ostree.config import RepoMode
from p2p.ostree.content import _RegularFile
from p2p.ostree.holdings import STAGE_PATH
from p2p.ostree.messages import Form
from p2p.ostree.objects import (
    FileHeader,
    ObjectName,
    ObjectType,
    checksum_of,
    frame_header,
)
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from p2p.ostree.upload import Upload
from tests.oracle import walk_objects
from tests.ostree.samples import MODES, file_object, filez, make_repo

CONTENT = b"some content that is long enough to be cut " * 3
XATTRS = ((b"user.a", b"1"),)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER)) as opened:
        yield opened


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Stage]:
    with Stage(make_repo(str(tmp_path / "archive"), RepoMode.ARCHIVE)) as opened:
        yield opened


def send(upload: Upload, data: bytes, *, size: int = 1 << 20) -> None:
    for start in range(0, len(data), size):
        upload.write(data[start : start + size])
    upload.finish()


def staged(stage: Stage) -> list[ObjectName]:
    scratch = Path(stage.repo.path, "tmp")
    left = [p.name for p in scratch.rglob("*") if p.is_file() and p.name != ".lock"]
    assert left == []
    return list(stage.repo.all_objects())


def arrive(
    stage: Stage, name: ObjectName, form: Form, data: bytes, *, size: int
) -> None:
    """Take an object as the writer does: what is not kept is discarded."""
    upload = Upload(stage, name, form, len(data))
    try:
        send(upload, data, size=size)
    finally:
        upload.discard()


def refuse(
    stage: Stage, name: ObjectName, form: Form, data: bytes, kind: type[Error]
) -> None:
    """Expect an error in whatever pieces the bytes come, and nothing left."""
    for size in (1, 7, 1 << 20):
        with pytest.raises(kind):
            arrive(stage, name, form, data, size=size)
        assert staged(stage) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 5, 8, 9, 30, 1000])
@pytest.mark.parametrize("target", ["", "a link"], ids=["file", "link"])
def test_canonical_form_is_kept_however_it_is_cut(
    tmp_path: Path, mode: RepoMode, size: int, target: str
) -> None:
    repo = make_repo(str(tmp_path / "repo"), mode)
    name, data = file_object(b"" if target else CONTENT, target=target)
    with Stage(repo) as stage:
        send(Upload(stage, name, Form.CANONICAL, len(data)), data, size=size)
        assert staged(stage) == [name]
    assert walk_objects(tmp_path / "repo").problems == ()


def test_an_empty_file_is_kept(stage: Stage) -> None:
    name, data = file_object()
    send(Upload(stage, name, Form.CANONICAL, len(data)), data)
    assert staged(stage) == [name]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("known", [True, False])
def test_a_filez_is_kept_byte_for_byte(
    archive: Stage, size: int, *, known: bool
) -> None:
    name, _ = file_object(CONTENT)
    packed = filez(CONTENT)
    length = len(packed) if known else None
    send(Upload(archive, name, Form.FILEZ, length), packed, size=size)
    assert staged(archive) == [name]
    place = Path(archive.repo.objects, name.path(archive=True))
    assert place.read_bytes() == packed


def test_a_filez_elsewhere_than_in_an_archive_is_refused(stage: Stage) -> None:
    name, _ = file_object(CONTENT)
    refuse(stage, name, Form.FILEZ, filez(CONTENT), FormatError)


def test_only_files_come_in_pieces(stage: Stage) -> None:
    data = b"metadata"
    name = ObjectName(checksum_of(data), ObjectType.DIRTREE)
    refuse(stage, name, Form.CANONICAL, data, FormatError)


def test_only_a_filez_may_leave_its_size_open(stage: Stage) -> None:
    with pytest.raises(FormatError, match="unknown size"):
        Upload(stage, file_object()[0], Form.CANONICAL, None)


@pytest.mark.parametrize("at", [8, 30, -1])
def test_one_changed_byte_is_found(stage: Stage, at: int) -> None:
    name, data = file_object(CONTENT)
    changed = bytearray(data)
    changed[at] ^= 1
    refuse(stage, name, Form.CANONICAL, bytes(changed), Error)


def test_one_changed_byte_of_a_filez_is_found(archive: Stage) -> None:
    name, _ = file_object(CONTENT)
    for at in range(len(filez(CONTENT))):
        changed = bytearray(filez(CONTENT))
        changed[at] ^= 1
        upload = Upload(archive, name, Form.FILEZ, len(changed))
        with pytest.raises((FormatError, IntegrityError)):
            send(upload, bytes(changed))
        upload.discard()
        assert staged(archive) == []


@pytest.mark.parametrize("claimed", [0, len(CONTENT) - 1, len(CONTENT) + 1, 1 << 63])
def test_a_filez_that_lies_about_its_size_is_refused(
    archive: Stage, claimed: int
) -> None:
    name, _ = file_object(CONTENT)
    refuse(archive, name, Form.FILEZ, filez(CONTENT, claimed=claimed), Error)


def test_bytes_behind_the_end_of_a_filez_are_refused(archive: Stage) -> None:
    name, _ = file_object(CONTENT)
    refuse(archive, name, Form.FILEZ, filez(CONTENT) + b"more", FormatError)


def test_a_filez_of_unknown_size_that_is_cut_off_is_refused(archive: Stage) -> None:
    name, _ = file_object(CONTENT)
    upload = Upload(archive, name, Form.FILEZ, None)
    with pytest.raises(FormatError):
        send(upload, filez(CONTENT)[:-1])
    upload.discard()
    assert staged(archive) == []


@pytest.mark.parametrize("size", [0, 10, 60])
def test_more_bytes_than_announced_are_refused(stage: Stage, size: int) -> None:
    name, data = file_object(CONTENT)
    upload = Upload(stage, name, Form.CANONICAL, size)
    with pytest.raises(IntegrityError, match=f"{size} bytes as announced, got more"):
        send(upload, data, size=20)
    upload.discard()
    assert staged(stage) == []


def test_fewer_bytes_than_announced_are_refused(stage: Stage) -> None:
    name, data = file_object(CONTENT)
    upload = Upload(stage, name, Form.CANONICAL, len(data) + 1)
    with pytest.raises(IntegrityError, match="as announced, got fewer"):
        send(upload, data)
    upload.discard()
    assert staged(stage) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        bytes(8),
        b"\0\0\0\x20\0\0\0\0" + bytes(20),
        b"\0\0\0\x20\0\0\0\x01" + bytes(60),
        b"\xff\xff\xff\xff\0\0\0\0" + bytes(60),
        file_object(target="there")[1] + b"content",
        frame_header(FileHeader(0, 0, 0o100644).serialize()[:-1]) + b"content",
    ],
    ids=lambda data: f"{len(data)}-{data[:8].hex()}",
)
def test_what_is_no_file_is_refused_though_its_checksum_is_right(
    stage: Stage, data: bytes
) -> None:
    name = ObjectName(checksum_of(data), ObjectType.FILE)
    refuse(stage, name, Form.CANONICAL, data, FormatError)


@pytest.mark.parametrize("after", range(3))
def test_an_object_with_a_hole_is_never_finished(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The disk was full at one piece; the next ones would fit again."""
    name, data = file_object(CONTENT)
    upload = Upload(stage, name, Form.CANONICAL, len(data))
    pieces = [data[start : start + 40] for start in range(0, len(data), 40)]
    real = _RegularFile.write

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for piece in pieces[:after]:
        upload.write(piece)
    monkeypatch.setattr(_RegularFile, "write", fail)
    with pytest.raises(NoSpaceError, match="No space left"):
        upload.write(pieces[after])
    monkeypatch.setattr(_RegularFile, "write", real)
    with pytest.raises(IntegrityError):
        upload.write(pieces[after + 1])
    with pytest.raises(IntegrityError):
        upload.finish()
    upload.discard()
    assert staged(stage) == []


@pytest.mark.root
def test_an_object_whose_inode_cannot_be_made_is_never_finished(
    tmp_path: Path,
) -> None:
    with Stage(make_repo(str(tmp_path / "repo"), RepoMode.BARE)) as stage:
        name, data = file_object(CONTENT, xattrs=((b"nonsense.a", b"1"),))
        upload = Upload(stage, name, Form.CANONICAL, len(data))
        upload.write(data)
        for _ in range(2):
            with pytest.raises(Error):
                upload.finish()
        upload.discard()
        assert staged(stage) == []


def test_a_discarded_object_leaves_nothing_and_can_be_discarded_again(
    stage: Stage,
) -> None:
    name, data = file_object(CONTENT)
    before = len(os.listdir("/proc/self/fd"))
    upload = Upload(stage, name, Form.CANONICAL, len(data))
    upload.write(data)
    upload.discard()
    upload.discard()
    assert staged(stage) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_visible_before_the_end(tmp_path: Path, stage: Stage) -> None:
    name, data = file_object(CONTENT)
    upload = Upload(stage, name, Form.CANONICAL, len(data))
    upload.write(data)
    assert not stage.has(name)
    assert list(Repo.open(tmp_path / "repo" / STAGE_PATH).all_objects()) == []
    upload.finish()
    assert stage.has(name)


def test_an_object_that_came_twice_is_kept_once(stage: Stage) -> None:
    name, data = file_object(CONTENT)
    one, other = (Upload(stage, name, Form.CANONICAL, len(data)) for _ in range(2))
    send(one, data)
    send(other, data)
    assert staged(stage) == [name]
