"""How fast somebody delivers, measured only while something is due from them."""

from __future__ import annotations

# Recent enough to follow a link that changes, long enough to span a few units.
HALF_LIFE = 1.0


class Meter:
    """Bytes (or objects) per second of busy time, recent ones weighing most."""

    __slots__ = ("_amount", "_seconds", "_since")

    def __init__(self) -> None:
        self._amount = 0.0
        self._seconds = 0.0
        self._since: float | None = None

    def start(self, now: float) -> None:
        """Something is due from now on."""
        if self._since is None:
            self._since = now

    def stop(self, now: float) -> None:
        """Nothing is due any more."""
        self.add(0, now)
        self._since = None

    def add(self, amount: float, now: float) -> None:
        """Count what arrived; what comes while nothing is due is not counted."""
        if self._since is None:
            return
        elapsed = now - self._since
        fade = 0.5 ** (elapsed / HALF_LIFE)
        self._amount = self._amount * fade + amount
        self._seconds = self._seconds * fade + elapsed
        self._since = now

    def rate(self) -> float:
        """Return amount per second, 0 before anything was measured."""
        return self._amount / self._seconds if self._seconds else 0.0
