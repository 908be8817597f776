"""How much time we lose on neighbours before we go to the origin ourselves.

Time is lost while something is missing, others fetch it, and nothing is ours to
fetch. Every byte that neighbours give us, or are seen to get, wins back the time in
which the origin would have given it to us. So a site that together is no slower than
the origin alone is waited for without end, and one that is slower costs a device its
patience once, and nothing after that.
"""

from __future__ import annotations

# Time is a float: whoever wakes at the deadline may come a little early.
_ROUNDING = 1e-6


class Patience:
    """An account of lost seconds.

    Attributes:
        limit: how many may be lost.

    """

    __slots__ = ("_lost", "_since", "limit")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._lost = 0.0
        self._since: float | None = None

    def __repr__(self) -> str:
        return f"<Patience {self._lost:.1f} of {self.limit:.1f} s lost>"

    @property
    def is_spent(self) -> bool:
        """Tell whether we may fetch what is somebody else's."""
        return self._lost >= self.limit - _ROUNDING

    @property
    def is_half_spent(self) -> bool:
        """Tell whether it may be spent soon."""
        return self._lost >= self.limit / 2

    @property
    def is_spent_twice(self) -> bool:
        """Tell whether those who may help out before us do not, either."""
        return self._lost >= 2 * self.limit - _ROUNDING

    def watch(self, now: float, *, waiting: bool, won: float) -> None:
        """Account for the time since the last call.

        Args:
            now: the time.
            waiting: whether we wait for others from now on.
            won: seconds that others saved us meanwhile.

        """
        if self._since is not None:
            self._lost += now - self._since
        # Long waits are not saved up: what comes afterwards shall count.
        self._lost = min(max(0.0, self._lost - won), 2 * self.limit)
        if waiting:
            self._since = now
        else:
            self._since = None
            self._lost = 0.0

    def deadline(self) -> float | None:
        """Return when it will be spent if nothing comes; None while not waiting."""
        if self._since is None or self.is_spent_twice:
            return None
        limit = 2 * self.limit if self.is_spent else self.limit
        return self._since + limit - self._lost
