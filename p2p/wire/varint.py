"""Ascending lists of numbers as LEB128 varints of their distances; pure."""

from __future__ import annotations

from collections.abc import Sequence

from p2p.wire.limits import U32
from p2p.wire.rule import RuleError


def pack_ascending(numbers: Sequence[int]) -> bytes:
    """Return the first number and each distance to the next, less one, as varints.

    Raises:
        RuleError: the numbers do not ascend strictly from 0 or more.

    """
    packed = bytearray()
    previous = -1
    for number in numbers:
        gap = number - previous - 1
        if gap < 0:
            raise RuleError(f"{number} does not ascend")
        while gap > 0x7F:
            packed.append(gap & 0x7F | 0x80)
            gap >>= 7
        packed.append(gap)
        previous = number
    return bytes(packed)


def unpack_ascending(data: bytes, limit: int) -> tuple[int, ...]:
    """Return the numbers, at most `limit`.

    Raises:
        RuleError: a varint is cut off, not the shortest, or exceeds 32 bits; or
            there are too many.

    """
    numbers: list[int] = []
    previous = -1
    gap = shift = 0
    for byte in data:
        gap |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 28:
                raise RuleError("varint of more than five bytes")
            continue
        if shift and not byte:
            raise RuleError("varint with a needless byte")
        previous += gap + 1
        if previous > U32 or len(numbers) == limit:
            raise RuleError(f"more than {limit} numbers, or above {U32}")
        numbers.append(previous)
        gap = shift = 0
    if shift:
        raise RuleError("varint cut off")
    return tuple(numbers)
