"""Short waits of many tasks, which end together.

A wait of its own costs each task some 100 us, most of it for being cancelled; one that
another task ends costs it a tenth of that, and what they do then is done in one turn of
the loop.
"""

from __future__ import annotations

from math import ceil
from typing import Final

import trio

STEP_SECONDS: Final = 0.008


class Beat:
    """Lets tasks wait until the next of its steps."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._steps: dict[int, trio.Event] = {}

    def __repr__(self) -> str:
        return f"<Beat {len(self._steps)} steps awaited>"

    async def wait(self, seconds: float) -> None:
        """Return in so many seconds, up to a step later; sooner if one was cancelled.

        The first to wait for a step sleeps until then and wakes the others.
        """
        step = ceil((trio.current_time() + seconds) / STEP_SECONDS)
        event = self._steps.get(step)
        if event is not None:
            await event.wait()
            return
        event = self._steps[step] = trio.Event()
        try:
            await trio.sleep_until(step * STEP_SECONDS)
        finally:
            del self._steps[step]
            event.set()
