"""Static deltas: found by their names in the repository."""

import hashlib
from pathlib import Path

import pytest

from p2p.errors import FormatError
from p2p.ostree.config import RepoMode
from p2p.ostree.deltas import list_deltas, superblock_checksums
from p2p.ostree.repo import Repo

# As ostree named them.
SOURCE = "ec9408f36fc5477abc3f5ea74318fa395c954a41ecebc1f63594aa1fe6299c40"
TARGET = "fdb5832640ea18927833559eefff5438bbe44a4685c848aeae710d6223b91e85"
FROM = "7J/QI82_FR3q8P16nQxj6OVyVSkHs68H2NZSqH+YpnEA"
TO = "_bWDJkDqGJJ4M1We7_9UOLvkSkaFyEiurnENYiO5HoU"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.init(tmp_path / "repo", RepoMode.ARCHIVE)


def put(repo: Repo, path: str) -> None:
    directory = Path(repo.path, "deltas", path)
    directory.mkdir(parents=True)
    (directory / "superblock").write_bytes(b"superblock")


def test_without_deltas_there_are_none(repo: Repo) -> None:
    assert list(list_deltas(repo)) == []


def test_deltas_are_named_as_by_ostree(repo: Repo) -> None:
    put(repo, f"{TO[:2]}/{TO[2:]}")
    put(repo, f"{FROM}-{TO}")
    (Path(repo.path) / "deltas/aa/unfinished").mkdir(parents=True)
    found = {delta.name: delta for delta in list_deltas(repo)}
    assert set(found) == {TARGET, f"{SOURCE}-{TARGET}"}
    assert found[TARGET].source is None
    assert {delta.target for delta in found.values()} == {TARGET}
    digest = hashlib.sha256(b"superblock").hexdigest()
    assert set(superblock_checksums(repo)) == {(name, digest) for name in found}


@pytest.mark.parametrize("name", ["ab/c", "ab/" + "!" * 41, "ab/" + "c" * 40])
def test_a_strange_name_is_an_error(repo: Repo, name: str) -> None:
    put(repo, name)
    with pytest.raises(FormatError):
        list(list_deltas(repo))
