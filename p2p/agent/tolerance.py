"""How much a neighbour may say that nobody asked for."""

from __future__ import annotations

# A device that fetches tells at most 20 times a second what (`Tuning.announce`).
MESSAGES_PER_SECOND = 40.0
# What an honest neighbour has said while we did not read, until it gave us up.
BURST_MESSAGES = 600.0


class Tolerance:
    """A token bucket for one session; times are the caller's, in seconds."""

    __slots__ = ("_left", "_since")

    def __init__(self, now: float) -> None:
        """Let a whole burst come at first."""
        self._left = BURST_MESSAGES
        self._since = now

    def bears(self, now: float) -> bool:
        """Take note of a message; False if it is one too many."""
        fresh = (now - self._since) * MESSAGES_PER_SECOND
        self._left = min(self._left + fresh, BURST_MESSAGES) - 1
        self._since = now
        return self._left >= 0
