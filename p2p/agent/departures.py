"""Why sessions with neighbours ended, for people who ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from p2p.wire.messages import Bye, DeviceId

# Who comes under a new name each time must not fill our memory.
MAX_DEPARTURES = 64


@dataclass(frozen=True, slots=True)
class _Departure:
    address: str
    reason: str
    when: float


class Departures:
    """The last end of each neighbour's session, latest last; times are the caller's."""

    def __init__(self) -> None:
        """Nobody has left."""
        self._last: dict[DeviceId, _Departure] = {}

    def note(self, device: DeviceId, address: str, reason: str, now: float) -> None:
        """Remember why a session ended, in place of what came before."""
        self._last.pop(device, None)
        if len(self._last) >= MAX_DEPARTURES:
            del self._last[next(iter(self._last))]
        self._last[device] = _Departure(address, reason, now)

    def describe(self, now: float) -> list[dict[str, Any]]:
        """Return all, as JSON values."""
        return [
            {
                "device": device,
                "address": left.address,
                "reason": left.reason,
                "seconds": round(now - left.when, 1),
            }
            for device, left in self._last.items()
        ]


def farewell_reason(theirs: Bye | None, ours: Bye | None) -> str:
    """Return why a session ended without an error, from what was said last."""
    if theirs is not None:
        return _words("it left", theirs)
    if ours is not None:
        return _words("we left", ours)
    return "it closed the connection without a word"


def _words(who: str, bye: Bye) -> str:
    text = f": {bye.text}" if bye.text else ""
    return f"{who}, {bye.reason.name.lower()}{text}"
