"""What a watch is told, merged with what of it still waits to be written; pure."""

from __future__ import annotations

from collections.abc import Iterable

from p2p.wire.limits import MAX_HAVE_INDICES, MAX_UNITS_BYTES, MAX_UNITS_OBJECTS
from p2p.wire.messages import Have, UnitMap, Units


def merge_have(waiting: Have | None, new: Have) -> list[Have]:
    """Return both as messages, all but the last one full."""
    before = waiting.indices if waiting else ()
    merged = sorted({*before, *new.indices})
    # Even without any index there is a message, for its field to refuse.
    starts = range(0, max(len(merged), 1), MAX_HAVE_INDICES)
    return [
        Have(new.request, tuple(merged[at : at + MAX_HAVE_INDICES])) for at in starts
    ]


def merge_units(waiting: Iterable[Units], new: Units) -> list[Units]:
    """Return all of it as messages, each object once and as it was said last."""
    merged = {
        found.number: found for message in (*waiting, new) for found in message.objects
    }
    # What is withdrawn must not come behind an answer that follows it. So it stays in
    # the first message, which keeps its place.
    objects = sorted(
        merged.values(), key=lambda found: (any(found.bitmap), found.number)
    )
    parts: list[list[UnitMap]] = [[]]
    left = MAX_UNITS_BYTES
    for found in objects:
        left -= len(found.bitmap)
        if left < 0 or len(parts[-1]) == MAX_UNITS_OBJECTS:
            parts.append([])
            left = MAX_UNITS_BYTES - len(found.bitmap)
        parts[-1].append(found)
    return [Units(new.request, tuple(part)) for part in parts]
