"""Shows how far a pull is: bars on a terminal, one closing line elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING

import click
import trio

from p2p.agent.pull import PullStatus
from p2p.cli.options import format_bytes
from p2p.web.treehub.push import PushStatus

if TYPE_CHECKING:
    # rich takes 60 ms to import, which only a terminal needs to pay.
    from rich.console import RenderableType
    from rich.progress import Progress

_REFRESH_SECONDS = 0.1
# Rates are averaged over so many refreshes: three seconds.
_WINDOW = 30


class Rate:
    """Bytes a second over the last moments."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def update(self, total: int) -> float:
        """Take the number of bytes so far; return the rate."""
        now = time.monotonic()
        self._samples.append((now, total))
        since, before = self._samples[0]
        return (total - before) / (now - since) if now > since else 0.0


def describe(status: PullStatus, rate: float) -> str:
    """Return one line: objects, bytes by where they came from, rate, time left."""
    sources = [
        f"{format_bytes(tally.bytes)} from {name}"
        for name, tally in (("neighbours", status.peers), ("the origin", status.origin))
        if tally.objects
    ]
    if status.local.objects:
        sources.append(f"{status.local.objects} objects here already")
    parts = [", ".join(sources) or "looking", f"{format_bytes(rate)}/s"]
    received = status.origin.bytes + status.peers.bytes
    missing = status.total_objects - status.local.objects - status.staged_objects
    if status.total_known and rate and status.staged_objects:
        # Sizes are in no directory, so the mean so far stands for what is missing.
        left = missing * received / status.staged_objects / rate
        parts.append(f"{int(left // 60)}:{int(left % 60):02} left")
    return " · ".join(parts)


async def show(status: PullStatus) -> None:
    """Draw until cancelled; only on a terminal."""
    if not sys.stderr.isatty():
        await trio.sleep_forever()
    from rich.live import Live  # noqa: PLC0415 - for a terminal only

    rate = Rate()
    bars = _bars()
    task = bars.add_task("", total=None)
    with Live(bars, console=bars.console, transient=True, auto_refresh=False) as live:
        while True:
            received = status.origin.bytes + status.peers.bytes
            bars.update(
                task,
                description=status.phase,
                completed=status.staged_objects + status.local.objects,
                total=status.total_objects or None,
                detail=describe(status, rate.update(received)),
            )
            live.update(_renderable(bars), refresh=True)
            await trio.sleep(_REFRESH_SECONDS)


async def show_push(status: PushStatus) -> None:
    """Draw a push until cancelled; only on a terminal."""
    if not sys.stderr.isatty():
        await trio.sleep_forever()
    from rich.live import Live  # noqa: PLC0415 - for a terminal only

    rate = Rate()
    bars = _bars()
    task = bars.add_task("", total=None)
    with Live(bars, console=bars.console, transient=True, auto_refresh=False) as live:
        while True:
            bars.update(
                task,
                description=status.phase,
                completed=status.done_objects,
                total=status.total_objects or None,
                detail=f"{format_bytes(status.sent_bytes)} sent · "
                f"{format_bytes(rate.update(status.sent_bytes))}/s",
            )
            live.update(_renderable(bars), refresh=True)
            await trio.sleep(_REFRESH_SECONDS)


def _renderable(bars: Progress) -> RenderableType:
    return bars.get_renderable()


def _bars() -> Progress:
    from rich.console import Console  # noqa: PLC0415 - for a terminal only
    from rich.progress import (  # noqa: PLC0415 - for a terminal only
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
    )

    return Progress(
        TextColumn("{task.description:8}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        console=Console(stderr=True),
        auto_refresh=False,
    )


def summarise(status: PullStatus, seconds: float) -> None:
    """Print the closing line."""
    received = status.origin.bytes + status.peers.bytes
    rate = received / seconds if seconds else 0.0
    click.echo(f"{describe(status, rate)} · {seconds:.1f} s", err=True)
