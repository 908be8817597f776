"""Lists of unit hashes of whole objects: read once, never of a damaged object."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2p.agent import hash_lists
from p2p.agent.hash_lists import HashLists
from p2p.errors import DamagedObjectError, ObjectNotFoundError
from p2p.ostree.canonical import CanonicalReader
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.wire.limits import MAX_PAGE_HASHES, UNIT_BYTES
from tests.agent.test_serving import flip_in_place

UNITS = 7
STRANGE = ObjectName(Checksum("ee" * 32), ObjectType.FILE)


class CountingReader(CanonicalReader):
    """Counts the ranges it reads."""

    ranges = 0

    def read_range(self, name: ObjectName, offset: int, length: int) -> bytes:
        self.ranges += 1
        return super().read_range(name, offset, length)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    (tmp_path / "tree").mkdir()
    for name in ("one", "two"):
        content = os.urandom((UNITS - 1) * UNIT_BYTES + 100)
        (tmp_path / "tree" / name).write_bytes(content)
    repo = Repo.init(tmp_path / "repo", RepoMode.BARE_USER)
    commit_tree(repo, tmp_path / "tree", CommitOptions(branch="os"))
    return repo


@pytest.fixture
def names(repo: Repo) -> list[ObjectName]:
    return [name for name in repo.all_objects() if name.type is ObjectType.FILE]


@pytest.fixture
def reader(repo: Repo, tmp_path: Path) -> Iterator[CountingReader]:
    reader = CountingReader(Holdings.published(repo), scratch=str(tmp_path))
    yield reader
    reader.close()


def hashes_of(reader: CanonicalReader, name: ObjectName) -> bytes:
    units = (reader.read_range(name, u * UNIT_BYTES, UNIT_BYTES) for u in range(UNITS))
    return b"".join(hashlib.sha256(unit).digest() for unit in units)


def test_eight_who_ask_cost_one_read(
    reader: CountingReader, names: list[ObjectName]
) -> None:
    expected = hashes_of(reader, names[0])
    lists = HashLists(reader)
    reader.ranges = 0
    size = reader.size(names[0])
    for _ in range(8):
        assert lists.page(names[0], 0, MAX_PAGE_HASHES) == (size, expected)
    assert lists.page(names[0], 2, 3) == (size, expected[64:160])
    assert lists.page(names[0], UNITS, 3) == (size, b"")
    assert lists.page(names[0], 5 * MAX_PAGE_HASHES, 3) == (size, b"")
    assert reader.ranges == UNITS


def test_a_list_that_was_learned_costs_no_read(
    reader: CountingReader, names: list[ObjectName]
) -> None:
    expected = hashes_of(reader, names[0])
    lists = HashLists(reader)
    reader.ranges = 0
    lists.learn(names[0], expected)
    assert lists.page(names[0], 0, UNITS)[1] == expected
    assert reader.ranges == 0


def test_what_is_not_here_or_damaged_has_no_list(
    repo: Repo, reader: CountingReader, names: list[ObjectName]
) -> None:
    lists = HashLists(reader)
    with pytest.raises(ObjectNotFoundError):
        lists.page(STRANGE, 0, 1)
    flip_in_place(Path(repo.object_path(names[0])))
    for _ in range(2):
        with pytest.raises(DamagedObjectError):
            lists.page(names[0], 0, 1)


def test_the_oldest_list_is_forgotten_when_there_are_too_many(
    reader: CountingReader, names: list[ObjectName], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_lists, "MAX_KEPT_HASHES", 2 * UNITS - 1)
    lists = HashLists(reader)
    one, two = names[:2]
    for name in (one, two, two, one, one):
        lists.page(name, 0, 1)
    assert reader.ranges == 3 * UNITS
    for _ in range(5):
        lists.learn(one, hashes_of(reader, one))
    reader.ranges = 0
    lists.page(one, 0, 1)
    assert reader.ranges == 0


def test_an_object_of_several_pages_is_read_page_by_page(
    reader: CountingReader, names: list[ObjectName], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = hashes_of(reader, names[0])
    monkeypatch.setattr(hash_lists, "MAX_PAGE_HASHES", 4)
    lists = HashLists(reader)
    reader.ranges = 0
    assert lists.page(names[0], 4, 4)[1] == expected[4 * 32 :]
    assert reader.ranges == UNITS - 4
    assert lists.page(names[0], 2, 4)[1] == expected[2 * 32 : 4 * 32]
    lists.learn(names[0], expected)
    assert lists.page(names[0], 5, 9)[1] == expected[5 * 32 :]
    assert reader.ranges == UNITS
