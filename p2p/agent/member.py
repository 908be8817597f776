"""What a member tells its neighbours of itself: what it fetches from the origin."""

from __future__ import annotations

import msgpack

from p2p.errors import FormatError
from p2p.ostree.objects import ObjectName, ObjectType, from_raw, raw
from p2p.swarm import action as a
from p2p.swarm import event as e

_MAX_FETCHES = 8


def encode_member(news: a.AnnounceMember) -> bytes:
    """Return a record's body: [state, [[type, raw checksum, bytes]…]]."""
    fetches = [
        [int(name.type), raw(name.checksum), count]
        for name, count in news.fetching[:_MAX_FETCHES]
    ]
    return bytes(msgpack.packb([news.origin.value, fetches]))


def decode_member(
    body: bytes,
) -> tuple[e.OriginState, tuple[tuple[ObjectName, int], ...]]:
    """Return what a member said; FormatError if it is nonsense."""
    try:
        match msgpack.unpackb(body):
            case [str(state), [*fetches]] if len(fetches) <= _MAX_FETCHES:
                return e.OriginState(state), tuple(map(_decode_fetch, fetches))
    except (ValueError, msgpack.UnpackException) as error:
        raise FormatError(f"member record: {error}") from None
    raise FormatError("member record: it is no [state, fetches]")


def _decode_fetch(row: object) -> tuple[ObjectName, int]:
    match row:
        case [int(kind), bytes(digest), int(count)] if count >= 0:
            return ObjectName(from_raw(digest), ObjectType(kind)), count
    raise FormatError("member record: it is no [type, checksum, bytes]")
