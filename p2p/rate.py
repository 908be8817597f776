"""Rates as people write them, and the token bucket that keeps to one; pure.

A rate is in bytes a second; None stands for no limit.
"""

from __future__ import annotations

import re
from math import inf
from typing import Final

from p2p.errors import ConfigError

BURST_SECONDS: Final = 0.2
"""What was not used may be made up for so long: a late wake-up costs no bandwidth."""
_SLICE_SECONDS = 0.02
_MIN_SLICE_BYTES = 1400
_MAX_SLICE_BYTES = 256 << 10
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)bit", re.IGNORECASE)
_BITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}
# Of a full packet of Ethernet: 14 bytes of its own header, 20 of IPv4, 32 of TCP
# with timestamps. IPv6 has 20 more, which are 1.3 %.
_HEADERS_BYTES = 66
_SEGMENT_BYTES = 1448


def parse_rate(text: str, *, where: str) -> float:
    """Return bytes a second of `10mbit`, as `tc` writes rates; ConfigError if none."""
    match = _RATE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise ConfigError(
            where, f"{text!r} is no rate", hint="Examples: 500kbit, 10mbit."
        )
    return float(match[1]) * _BITS[match[2].lower()] / 8


def format_rate(rate: float | None) -> str:
    """Return a rate as `parse_rate` reads it; `unlimited` for None."""
    if rate is None:
        return "unlimited"
    bits = rate * 8
    for unit, size in (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)):
        if bits >= size:
            return f"{bits / size:.6g}{unit}"
    return f"{bits:.6g}bit"


def on_wire(size: int) -> int:
    """Return how many bytes of Ethernet carry so many bytes of TCP, about."""
    return size + _HEADERS_BYTES * -(-size // _SEGMENT_BYTES)


class Bucket:
    """The account of what passed under a rate, for all who share it.

    Whoever takes more than there is makes a debt, and nobody should take anything
    before `due`. A new rate holds for what is owed already, too.
    """

    __slots__ = ("_paid", "rate")

    def __init__(self, rate: float | None = None) -> None:
        """Begin without debt."""
        self.rate = rate
        # When all that was taken will have been paid for.
        self._paid = -inf

    def __repr__(self) -> str:
        return f"<Bucket {format_rate(self.rate)}>"

    def change(self, rate: float | None, now: float) -> None:
        """Keep to another rate from now on."""
        owed = max(0.0, self._paid - now) * (self.rate or 0.0)
        self.rate = rate
        if rate is not None and owed:
            self._paid = now + owed / rate
        else:
            self._paid = min(self._paid, now)

    def take(self, size: int, now: float) -> None:
        """Count so many bytes that pass now; fewer than none are given back."""
        if self.rate is not None:
            self._paid = max(self._paid, now - BURST_SECONDS) + size / self.rate

    def due(self, now: float) -> float:
        """Return when the next bytes may pass: `now` if at once."""
        return now if self.rate is None else max(now, self._paid)

    @property
    def slice_bytes(self) -> int:
        """How much may pass at once, so that nobody waits long for their turn."""
        if self.rate is None:
            return _MAX_SLICE_BYTES
        size = int(self.rate * _SLICE_SECONDS)
        return min(max(size, _MIN_SLICE_BYTES), _MAX_SLICE_BYTES)
