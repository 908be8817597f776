"""Objects of a local repository, verified and packed for an origin."""

import os
import random
from pathlib import Path

import pytest

from p2p.errors import DamagedObjectError, ObjectNotFoundError
from p2p.ostree.config import RepoMode
from p2p.ostree.filez import to_canonical
from p2p.ostree.objects import ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.web.client.request import Upload
from p2p.web.treehub.packing import IN_MEMORY_BYTES, Package, pack
from tests.web.treehub.hub import PLAIN, file_name, filez, make_commit, make_repo

SMALL = b"small\n" * 100
LARGE = random.Random(5).randbytes(IN_MEMORY_BYTES + 1)
COMMIT = make_commit({"small": SMALL, "large": LARGE})
CONTENT = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])


def bytes_of(package: Package) -> bytes:
    body = package.body
    if isinstance(body, Upload):
        body.file.seek(0)
        data = body.file.read()
        package.close()
        assert body.file.closed
        assert body.size == package.size
    else:
        data = body
        package.close()
    assert len(data) == package.size
    return data


@CONTENT
@pytest.mark.parametrize(
    "mode", [RepoMode.ARCHIVE, RepoMode.BARE_USER, RepoMode.BARE_USER_ONLY]
)
def test_a_file_of_any_mode_becomes_a_filez(
    tmp_path: Path, mode: RepoMode, content: bytes
) -> None:
    repo = make_repo(tmp_path, COMMIT, mode=mode)
    package = pack(repo, file_name(content))
    assert isinstance(package.body, Upload) == (content is LARGE)
    data = bytes_of(package)
    assert to_canonical(data, limit=1 << 30) == PLAIN.frame() + content
    assert not [name for name in os.listdir(tmp_path / "tmp") if name != "cache"]


def test_a_file_is_packed_where_the_repository_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(tmp_path / "repo", COMMIT, mode=RepoMode.BARE_USER)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert to_canonical(bytes_of(pack(repo, file_name(LARGE))), limit=1 << 30)


def test_metadata_is_packed_as_it_is(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, COMMIT)
    for name, data in COMMIT.stored.items():
        if name.type is not ObjectType.FILE:
            assert bytes_of(pack(repo, name)) == data


@CONTENT
def test_a_damaged_object_of_a_parent_repository_is_named(
    tmp_path: Path, content: bytes
) -> None:
    parent = make_repo(tmp_path / "parent", COMMIT)
    child = Repo.init(tmp_path / "child", RepoMode.ARCHIVE)
    child.keys.set("core", "parent", "../parent")
    child.save_config()
    child = Repo.open(tmp_path / "child")
    name = file_name(content)
    assert bytes_of(pack(child, name))
    other = bytes(len(content))
    for damaged in (filez(content) + b"x", filez(content)[:-1], filez(other)):
        Path(parent.object_path(name)).write_bytes(damaged)
        with pytest.raises(DamagedObjectError, match=name.checksum[2:]):
            pack(child, name)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, COMMIT)
    for name in (
        file_name(b"nowhere"),
        ObjectName(file_name(b"nowhere").checksum, ObjectType.DIRTREE),
    ):
        with pytest.raises(ObjectNotFoundError, match=name.checksum):
            pack(repo, name)
