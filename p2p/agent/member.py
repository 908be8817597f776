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
        state, fetches = msgpack.unpackb(body)
        return e.OriginState(state), tuple(
            (ObjectName(from_raw(bytes(digest)), ObjectType(kind)), int(count))
            for kind, digest, count in fetches[:_MAX_FETCHES]
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise FormatError(f"member record: {error}") from None
