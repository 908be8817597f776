"""What a list of unit hashes claims, as bytes to sign; pure.

A unit is 256 KiB of an object's canonical form, the last one shorter. Their hashes
let a unit be checked before the object is complete; the object's own checksum
decides. Who made a list signs it, so that blame reaches the liar through relays.
"""

from __future__ import annotations

from struct import Struct

from p2p.ostree.objects import ObjectName
from p2p.wire.fields import pack_names
from p2p.wire.limits import UNIT_BYTES

_DOMAIN = b"ostree-p2p/1 unit hashes\0"
_RANGE = Struct(">QII")


def unit_count(size: int) -> int:
    """Return how many units an object of `size` bytes has."""
    return -(-size // UNIT_BYTES)


def statement(name: ObjectName, size: int, first: int, hashes: bytes) -> bytes:
    """Return the bytes that the signature of HASHES is over.

    They are a constant, the name (33 bytes), then big-endian the object's size (64
    bits), the first unit's index and the number of hashes (32 bits each), and the
    hashes.
    """
    span = _RANGE.pack(size, first, len(hashes) // 32)
    return _DOMAIN + pack_names((name,)) + span + hashes
