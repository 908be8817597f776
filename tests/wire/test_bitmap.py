"""Bitmaps of closures and units."""

import pytest

from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire import bitmap
from p2p.wire.rule import RuleError


def test_bits_are_numbered_from_the_most_significant() -> None:
    assert bitmap.pack([0, 9], 10) == b"\x80\x40"
    assert bitmap.unpack(b"\x80\x40\x00\x01") == [0, 9, 31]
    assert bitmap.to_set(b"\x80\x40\x00\x01") == 1 << 0 | 1 << 9 | 1 << 31


@pytest.mark.parametrize("index", [-1, 10])
def test_a_bit_outside_is_an_error(index: int) -> None:
    with pytest.raises(IndexError):
        bitmap.pack([index], 10)


@pytest.mark.parametrize("packed, count", [(b"\x01", 8), (b"\xff\xe0", 11), (b"\0", 1)])
def test_bitmaps_of_their_count_pass(packed: bytes, count: int) -> None:
    bitmap.check(packed, count)


@pytest.mark.parametrize(
    "packed, count", [(b"", 1), (b"\0\0", 8), (b"\x40", 1), (b"\xff\xf0", 11)]
)
def test_bitmaps_of_another_count_are_refused(packed: bytes, count: int) -> None:
    with pytest.raises(RuleError):
        bitmap.check(packed, count)


def test_a_closure_is_sorted_by_kind_then_checksum() -> None:
    low, high = Checksum("0" * 64), Checksum("f" * 64)
    names = [
        ObjectName(low, ObjectType.DIRMETA),
        ObjectName(low, ObjectType.DIRTREE),
        ObjectName(high, ObjectType.FILE),
        ObjectName(low, ObjectType.FILE),
    ]
    assert bitmap.sort_closure(names) == names[::-1]
