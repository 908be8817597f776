"""The order in which GLib's dictionaries list their entries; pure.

libostree writes some dictionaries through a GVariantDict, which is a hash table, so
their bytes depend on its insides (GLib 2.74, `ghash.c`). Readers do not care.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import Metadata

# Numbers of slots are powers of two, from 8; a hash is taken modulo the prime that is
# nearest below each (GLib `ghash.c`, prime_mod).
_MIN_SHIFT = 3
_PRIMES = (
    *(7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521),
    *(131071, 262139, 524287, 1048573),
)


def glib_dictionary(entries: dict[str, Variant]) -> Metadata:
    """Return entries, given as they were inserted, in the order of a GVariantDict."""
    return tuple((key, entries[key]) for key in _hash_table_order(entries))


def _hash_table_order(keys: Iterable[str]) -> Iterator[str]:
    shift = _MIN_SHIFT
    slots: list[str | None] = [None] * (1 << shift)
    taken = [False] * len(slots)
    for count, key in enumerate(keys, 1):
        _place(slots, shift, key, taken)
        if len(slots) <= count + count // 16:
            shift = int(count * 1.333).bit_length()
            slots += [None] * ((1 << shift) - len(slots))
            taken = _rehash(slots, shift)
    return filter(None, slots)


def _rehash(slots: list[str | None], shift: int) -> list[bool]:
    """Put all keys in place for a new size; each may drive another one out."""
    settled = [False] * len(slots)
    for index in range(len(slots)):
        if settled[index]:
            continue
        key, slots[index] = slots[index], None
        while key is not None:
            key = _place(slots, shift, key, settled)
    return settled


def _place(
    slots: list[str | None], shift: int, key: str, taken: list[bool]
) -> str | None:
    """Put a key into the first slot of its own that is not taken; return what was."""
    index = (_string_hash(key) * 11 & 0xFFFFFFFF) % _PRIMES[shift - _MIN_SHIFT]
    step = 0
    while taken[index]:
        step += 1
        index = (index + step) & (len(slots) - 1)
    taken[index] = True
    before, slots[index] = slots[index], key
    return before


def _string_hash(key: str) -> int:
    """GLib's g_str_hash; values 0 and 1 mark free slots there."""
    value = 5381
    for byte in key.encode():
        value = (value * 33 + (byte - 256 if byte > 127 else byte)) & 0xFFFFFFFF
    return max(value, 2)
