"""How much a neighbour may say that nobody asked for."""

from __future__ import annotations

# A device that fetches tells at most 20 times a second what (`Tuning.announce`).
MESSAGES_PER_SECOND = 40.0
# What an honest neighbour has said while we did not read, until it gave us up.
BURST_MESSAGES = 600.0
# What it passes on of others grows with the site: when all of a thousand begin at once,
# each has something to say some times.
RELAYED_PER_SECOND = 400.0
BURST_RELAYED = 8000.0


class Tolerance:
    """A token bucket for one session; times are the caller's, in seconds."""

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(
        self,
        now: float,
        *,
        per_second: float = MESSAGES_PER_SECOND,
        burst: float = BURST_MESSAGES,
    ) -> None:
        """Let a whole burst come at first."""
        self._per_second = per_second
        self._burst = self._left = burst
        self._since = now

    def bears(self, now: float) -> bool:
        """Take note of a message; False if it is one too many."""
        fresh = (now - self._since) * self._per_second
        self._left = min(self._left + fresh, self._burst) - 1
        self._since = now
        return self._left >= 0
