"""Virtual time: things happen one after the other, in the order of their times."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")


class Timeline:
    """Calls functions at their times; equal times in the order of `at`.

    Attributes:
        now: seconds since the start.

    """

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time: float, call: Callable[[*Ts], None], *args: *Ts) -> None:
        """Call a function at a time, now if that has passed."""
        self._count += 1
        now = self.now
        time = max(now, time)
        heappush(self._queue, (time, self._count, call, args))

    def after(self, seconds: float, call: Callable[[*Ts], None], *args: *Ts) -> None:
        """Call a function so many seconds from now."""
        self._count += 1
        heappush(self._queue, (self.now + seconds, self._count, call, args))

    def run(self, until: float) -> None:
        """Let time pass until a moment."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, call, args = heappop(queue)
            call(*args)
        self.now = max(self.now, until)
