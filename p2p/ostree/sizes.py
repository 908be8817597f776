"""`ostree.sizes`: how large each object of a commit is, stored and unpacked; pure.

Format: libostree `ostree-repo-commit.c` (create_sizes_...) and `ostree-core.c`
(read_sizes_entry): an `aay`, each entry 32 bytes of checksum, two variable-length
integers (seven bits a byte, lowest first), and the object's type as one byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from p2p.errors import FormatError
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import ObjectName, ObjectType, from_raw, raw

SIZES_KEY = "ostree.sizes"
_MAX_VARINT_BYTES = 10


@dataclass(frozen=True, slots=True)
class ObjectSize:
    """One object's sizes in bytes; `stored` is that of its file in an archive."""

    name: ObjectName
    stored: int
    unpacked: int


def serialize_sizes(sizes: Iterable[ObjectSize]) -> Variant:
    """Return the value of `ostree.sizes`, sorted by checksum as libostree does."""
    entries = sorted(sizes, key=lambda size: size.name)
    return Variant("aay", tuple(map(_entry, entries)))


def _entry(size: ObjectSize) -> bytes:
    return (
        raw(size.name.checksum)
        + _varint(size.stored)
        + _varint(size.unpacked)
        + bytes((size.name.type,))
    )


def parse_sizes(entries: Iterable[bytes]) -> tuple[ObjectSize, ...]:
    """Return the sizes that a commit claims; nothing vouches for them but it.

    Entries without a type (written before libostree 2020.5) are left out.
    """
    return tuple(size for entry in entries if (size := _parse_entry(entry)))


def _parse_entry(entry: bytes) -> ObjectSize | None:
    checksum = from_raw(entry[:32])
    stored, at = _parse_varint(entry, 32)
    unpacked, at = _parse_varint(entry, at)
    if at == len(entry):
        return None
    if at + 1 != len(entry) or not 1 <= entry[at] <= len(ObjectType):
        raise FormatError("ostree.sizes: entry with an impossible object type")
    return ObjectSize(ObjectName(checksum, ObjectType(entry[at])), stored, unpacked)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _parse_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a position and where it ends."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise FormatError("ostree.sizes: number without an end")
