"""ostree.sizes: the bytes libostree writes, and entries that are none."""

import pytest

from p2p.errors import FormatError
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.sizes import ObjectSize, parse_sizes, serialize_sizes

A = ObjectName(Checksum("aa" * 32), ObjectType.FILE)
B = ObjectName(Checksum("bb" * 32), ObjectType.DIRTREE)


def test_entries_are_sorted_and_packed() -> None:
    sizes = [ObjectSize(B, 300, 142), ObjectSize(A, 39, 3)]
    variant = serialize_sizes(sizes)
    assert variant.type == "aay"
    assert variant.value == (
        b"\xaa" * 32 + b"\x27\x03\x01",
        b"\xbb" * 32 + b"\xac\x02\x8e\x01\x02",
    )
    assert parse_sizes(variant.value) == tuple(sorted(sizes, key=lambda s: s.name))


def test_an_entry_without_a_type_is_left_out() -> None:
    assert parse_sizes([b"\xaa" * 32 + b"\x27\x03"]) == ()


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\xaa" * 31,
        b"\xaa" * 32,
        b"\xaa" * 32 + b"\x80",
        b"\xaa" * 32 + b"\x01\x80",
        b"\xaa" * 32 + b"\xff" * 11,
        b"\xaa" * 32 + b"\x01\x01\x00",
        b"\xaa" * 32 + b"\x01\x01\x0a",
        b"\xaa" * 32 + b"\x01\x01\x01\x01",
    ],
)
def test_broken_entries_are_refused(entry: bytes) -> None:
    with pytest.raises(FormatError):
        parse_sizes([entry])
