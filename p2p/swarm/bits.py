"""Sets of small numbers as integers: bit n is set when n is a member; pure.

A commit has tens of thousands of objects and a site a dozen neighbours, and for each
request the scheduler needs what is wanted, not asked for, held by this neighbour and
by few others. As integers these are a few machine operations over some kilobytes.
A test of one bit, or `a & ~b` on a large set, copies; `a ^ (a & b)` is cheaper.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_WORD = 1024
_WORD_MASK = (1 << _WORD) - 1
_WIDE = 2048


def span(first: int, count: int) -> int:
    """Return the set of `count` numbers from `first` on."""
    return ((1 << count) - 1) << first


def pack(members: Iterable[int]) -> int:
    """Return the set of these numbers; cheapest when they lie close together."""
    numbers = list(members)
    if not numbers:
        return 0
    base = min(numbers)
    width = max(numbers) - base
    if width > _WIDE:
        return _pack_wide(numbers, base, width)
    word = 0
    for number in numbers:
        word |= 1 << (number - base)
    return word << base


def _pack_wide(numbers: list[int], base: int, width: int) -> int:
    # Each `|=` on an integer would copy all of it.
    octets = bytearray(width // 8 + 1)
    for number in numbers:
        offset = number - base
        octets[offset >> 3] |= 1 << (offset & 7)
    return int.from_bytes(octets, "little") << base


def unite(sets: Iterable[int]) -> int:
    """Return what is in any of the sets."""
    bits = 0
    for members in sets:
        bits |= members
    return bits


def less(bits: int, minus: int) -> int:
    """Return the members of the first set that are not in the second."""
    return bits ^ (bits & minus)


def each(bits: int) -> Iterator[int]:
    """Yield the members in ascending order."""
    base = 0
    while bits:
        gap = (bits & -bits).bit_length() - 1
        bits >>= gap
        base += gap
        word = bits & _WORD_MASK
        while word:
            low = word & -word
            yield base + low.bit_length() - 1
            word ^= low
        bits >>= _WORD
        base += _WORD


def around(bits: int, start: int) -> Iterator[int]:
    """Yield the members from `start` on, then those before it."""
    high = bits >> start
    for number in each(high):
        yield start + number
    yield from each(bits ^ (high << start))


def nth(bits: int, rank: int) -> int:
    """Return the member that so many others are smaller than."""
    base = 0
    width = bits.bit_length()
    while width > 1:
        half = width >> 1
        low = bits & ((1 << half) - 1)
        count = low.bit_count()
        if rank < count:
            bits, width = low, half
        else:
            bits, width = bits >> half, width - half
            rank -= count
            base += half
    return base


def tally(sets: Iterable[int]) -> tuple[int, ...]:
    """Count for every number how many sets have it.

    The counts come as slices: slice k holds the numbers whose count has bit k set.
    """
    slices: list[int] = []
    for carry in sets:
        for k, digit in enumerate(slices):
            slices[k] = digit ^ carry
            carry &= digit  # noqa: PLW2901 - the carry ripples through the digits
            if not carry:
                break
        else:
            if carry:
                slices.append(carry)
    return tuple(slices)


def fewest(bits: int, slices: tuple[int, ...]) -> int:
    """Return the members with the smallest count among them."""
    for digit in reversed(slices):
        rest = bits ^ (bits & digit)
        if rest:
            bits = rest
    return bits
