"""What TLS 1.3, TCP and IP add to what a session sends, and what loss does to it.

Acknowledgements and handshakes are not counted.
"""

from __future__ import annotations

from random import Random

from p2p.wire.limits import MAX_SLICE_BYTES

# Ethernet, IPv4, TCP with timestamps; and what fits into a segment beside them.
_PACKET_BYTES = 66
_SEGMENT_BYTES = 1448
# Head, kind and tag of a TLS record, and the most that one carries.
_RECORD_BYTES = 22
_MAX_RECORD_BYTES = 16 << 10
# How long TCP waits before it sends again what was lost at the end of a burst, where
# nothing that comes after it tells: 0.2 s at least on Linux, more behind full queues.
_RETRANSMISSION = (0.2, 0.6)
# Kind, length and request before a slice of content.
SLICE_HEAD_BYTES = 8

GOODPUT = (
    (1 - SLICE_HEAD_BYTES / (MAX_SLICE_BYTES + SLICE_HEAD_BYTES))
    * (1 - _RECORD_BYTES / (_MAX_RECORD_BYTES + _RECORD_BYTES))
    * (1 - _PACKET_BYTES / (_SEGMENT_BYTES + _PACKET_BYTES))
)
"""How much of a busy link's rate is content."""


def on_link(frames: int) -> int:
    """Return what control frames that are sent together take on the link."""
    if frames <= _SEGMENT_BYTES - _RECORD_BYTES:
        return frames + _RECORD_BYTES + _PACKET_BYTES
    records = -(-frames // _MAX_RECORD_BYTES)
    sealed = frames + records * _RECORD_BYTES
    return sealed + -(-sealed // _SEGMENT_BYTES) * _PACKET_BYTES


class Loss:
    """Chance and length of the pauses that lost packets make in a session."""

    def __init__(self, chance: float, seed: int) -> None:
        """Let each slice be lost with this chance."""
        self._chance = chance
        self._random = Random(seed)  # noqa: S311 - equal seeds, equal runs

    def hits(self) -> bool:
        """Tell whether the next slice is lost."""
        return self._random.random() < self._chance

    def seconds(self) -> float:
        """Return how much later it comes."""
        return self._random.uniform(*_RETRANSMISSION)
