"""Where the units of large objects wait, who may read them, what a full disk does."""

import hashlib
import os
import threading

import pytest

from p2p.agent.hash_lists import HashLists
from p2p.agent.scratch import Page, Scratch
from p2p.errors import NoSpaceError
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire.limits import MAX_PAGE_HASHES, UNIT_BYTES
from tests.mounts import MakeMount
from tests.trees import MIB

NAME = ObjectName(Checksum("a" * 64), ObjectType.FILE)
OTHER = ObjectName(Checksum("b" * 64), ObjectType.FILE)
SIZE = 9 * UNIT_BYTES + 100


def page(size: int = SIZE, first: int = 0, count: int = 10, key: bytes = b"k") -> Page:
    hashes = b"".join(digest(unit) for unit in range(first, first + count))
    return Page(size, first, hashes, key * 32, b"s" * 64)


def content(unit: int, size: int = UNIT_BYTES) -> bytes:
    return unit.to_bytes(4) * (size // 4)


def digest(unit: int) -> bytes:
    return hashlib.sha256(content(unit)).digest()


@pytest.mark.root
def test_a_full_disk_is_said_to_be_full(tmpfs: MakeMount) -> None:
    point = tmpfs(MIB)
    scratch = Scratch(str(point))
    scratch.add_page(NAME, page())
    unit = content(1)
    scratch.write(NAME, 1, unit)
    assert scratch.read(NAME, UNIT_BYTES, UNIT_BYTES) == unit
    scratch.write(NAME, 2, unit)
    with pytest.raises(NoSpaceError, match=str(point)):
        scratch.write(NAME, 3, unit * 5)
    assert scratch.read(NAME, 3 * UNIT_BYTES, 10) is None
    assert scratch.clear() == (NAME,)
    assert not list(point.iterdir())


def test_only_what_is_here_is_read(tmp_path: os.PathLike[str]) -> None:
    scratch = Scratch(str(tmp_path))
    assert scratch.read(NAME, 0, 1) is None
    assert scratch.bitmap(NAME) == b"\0"
    scratch.add_page(NAME, page())
    assert scratch.bitmap(NAME) == b"\0"
    for unit in (0, 1, 8):
        scratch.write(NAME, unit, content(unit))
    assert scratch.bitmap(NAME) == b"\xc0\x80"
    both = content(0) + content(1)
    assert scratch.read(NAME, 4, 2 * UNIT_BYTES - 4) == both[4:]
    assert scratch.read(NAME, UNIT_BYTES, UNIT_BYTES + 1) is None
    assert scratch.read(NAME, 9 * UNIT_BYTES, UNIT_BYTES) is None
    scratch.write(NAME, 9, content(9, 100))
    assert scratch.read(NAME, 9 * UNIT_BYTES, UNIT_BYTES) == content(9, 100)
    assert scratch.read(NAME, SIZE, 1) == b""
    scratch.discard(NAME)
    assert scratch.read(NAME, 0, 1) is None
    assert scratch.names() == ()
    scratch.discard(NAME)


def test_pages_are_passed_on_as_they_were_signed(tmp_path: os.PathLike[str]) -> None:
    scratch = Scratch(str(tmp_path))
    size = (MAX_PAGE_HASHES + 5) * UNIT_BYTES
    first = page(size, 0, MAX_PAGE_HASHES)
    second = page(size, MAX_PAGE_HASHES, 5)
    scratch.add_page(NAME, first)
    assert scratch.digest(NAME, MAX_PAGE_HASHES) is None
    scratch.add_page(NAME, second)
    assert scratch.digest(NAME, MAX_PAGE_HASHES + 4) == digest(MAX_PAGE_HASHES + 4)
    assert scratch.page(NAME, 0, MAX_PAGE_HASHES) is first
    assert scratch.page(NAME, MAX_PAGE_HASHES, 7) is second
    # It cannot be cut, nor begin elsewhere: the signature is over all of it.
    assert scratch.page(NAME, 0, MAX_PAGE_HASHES - 1) is None
    assert scratch.page(NAME, 1, MAX_PAGE_HASHES) is None
    assert scratch.page(OTHER, 0, MAX_PAGE_HASHES) is None


def test_a_new_list_begins_without_units_of_the_one_before(
    tmp_path: os.PathLike[str],
) -> None:
    scratch = Scratch(str(tmp_path))
    scratch.add_page(NAME, page())
    scratch.write(NAME, 0, content(0))
    scratch.add_page(NAME, page(SIZE - 100, count=9, key=b"l"))
    assert scratch.bitmap(NAME) == b"\0"
    assert scratch.read(NAME, 0, 10) is None
    assert scratch.digest(NAME, 9) is None
    assert scratch.size(NAME) == SIZE - 100


def test_a_reader_gets_what_it_asked_for_or_nothing_while_objects_go(
    tmp_path: os.PathLike[str],
) -> None:
    """A descriptor closed under a reader would be another object's a moment later."""
    scratch = Scratch(str(tmp_path))
    wrong: list[bytes] = []
    found, over = threading.Event(), threading.Event()

    def read() -> None:
        while not over.is_set():
            for name, unit in ((NAME, 1), (OTHER, 2)):
                data = scratch.read(name, unit * UNIT_BYTES, UNIT_BYTES)
                if data is not None:
                    found.set()
                if data not in {None, content(unit)}:
                    wrong.append(data or b"")

    thread = threading.Thread(target=read)
    thread.start()
    units = [(NAME, 1, content(1)), (OTHER, 2, content(2))]
    try:
        for turn in range(40):
            name, unit, data = units[turn % 2]
            scratch.add_page(name, page())
            scratch.write(name, unit, data)
            assert scratch.read(name, unit * UNIT_BYTES, 4) == data[:4]
            found.clear()
            assert found.wait(20)
            scratch.discard(name)
    finally:
        over.set()
        thread.join()
    assert not wrong


class Learned(HashLists):
    """Keeps what it learns."""

    def __init__(self) -> None:
        self.learned: dict[ObjectName, bytes] = {}

    def learn(self, name: ObjectName, hashes: bytes) -> None:
        self.learned[name] = hashes


def test_only_a_list_that_proved_right_is_ours_to_give(
    tmp_path: os.PathLike[str],
) -> None:
    lists = Learned()
    scratch = Scratch(str(tmp_path), lists)
    scratch.add_page(NAME, page())
    scratch.discard(NAME)
    scratch.add_page(OTHER, page())
    scratch.confirm(OTHER)
    scratch.confirm(NAME)
    assert scratch.clear() == (OTHER,)
    assert lists.learned == {OTHER: page().hashes}
