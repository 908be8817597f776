"""Which objects of a closure, or units of an object, are there: one bit each; pure.

Bit i is the bit of value 128 >> (i % 8) of byte i // 8; the bits behind the last
one are zero. A closure is sorted by kind, then checksum, and has no commit in it.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2p.ostree.objects import ObjectName
from p2p.wire.rule import RuleError

_BITS = tuple(
    tuple(bit for bit in range(8) if byte & 128 >> bit) for byte in range(256)
)
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def sort_closure(names: Iterable[ObjectName]) -> list[ObjectName]:
    """Return the objects of a commit's closure in the order of their indices."""
    return sorted(names, key=lambda name: (name.type, name.checksum))


def size(count: int) -> int:
    """Return the bytes of a bitmap of `count` bits."""
    return -(-count // 8)


def pack(indices: Iterable[int], count: int) -> bytes:
    """Return a bitmap of `count` bits with these set; IndexError for one past it."""
    packed = bytearray(size(count))
    for index in indices:
        if not 0 <= index < count:
            raise IndexError(f"bit {index} of {count}")
        packed[index >> 3] |= 128 >> (index & 7)
    return bytes(packed)


def unpack(packed: bytes) -> list[int]:
    """Return which bits are set, ascending."""
    return [
        8 * position + bit
        for position, byte in enumerate(packed)
        if byte
        for bit in _BITS[byte]
    ]


def to_set(packed: bytes) -> int:
    """Return which bits are set, as an integer with the same bits set."""
    return int.from_bytes(packed.translate(_MIRRORED), "little")


def check(packed: bytes, count: int) -> None:
    """Raise RuleError unless this is a bitmap of `count` bits."""
    if len(packed) != size(count) or packed[-1] & 0xFF >> (count % 8 or 8):
        raise RuleError(f"{len(packed)} bytes are no bitmap of {count} bits")
