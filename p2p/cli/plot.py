"""Draws a simulated run; the only door to matplotlib, which is an extra."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from p2p.errors import ConfigError, UnsupportedOptionError
from p2p.sim.history import History
from p2p.sim.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More lines than these cannot be told apart: then percentiles are drawn.
_MOST_LINES = 16
_PERCENTILES = (0, 10, 50, 90, 100)


def check_plot(path: str) -> None:
    """Raise unless a plot can be drawn and written there: before the run, not after.

    Raises:
        UnsupportedOptionError: matplotlib is not installed.
        ConfigError: the file cannot be written, or is of another kind.

    """
    if find_spec("matplotlib") is None:
        raise UnsupportedOptionError(
            "--plot needs matplotlib, which is not installed",
            hint="Install the extra: pip install 'ostree-p2p[plot]'.",
        )
    if not path.endswith(".png"):
        raise ConfigError("--plot", f"{path}: name it FILE.png")
    directory = os.path.dirname(path) or "."
    if not os.access(directory, os.W_OK):
        raise ConfigError("--plot", f"{directory}: cannot be written to")


def draw(history: History, report: Report, path: str) -> None:
    """Write a PNG: what devices have, how busy uplinks are, what crossed the WAN."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    has_wan = report.wan_copies is not None
    figure = Figure(figsize=(9, 9 if has_wan else 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [3, 2, 2] if has_wan else [3, 2]
    panes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    progress, uplinks = panes[0], panes[1]
    figure.suptitle(_title(report))
    _draw_progress(progress, history)
    progress.axvline(report.bound, color="black", linestyle=":", label="bound")
    progress.set_ylabel("of the commit, %")
    progress.legend(loc="lower right", fontsize="small")
    times = history.times
    uplinks.plot(times, _percent(history.uplinks), label="all devices, mean")
    if report.holders:
        uplinks.plot(times, _percent(history.holders), label="holders")
    uplinks.set_ylabel("uplink in use, %")
    uplinks.set_ylim(0, 105)
    uplinks.legend(loc="lower right", fontsize="small")
    if has_wan:
        panes[2].plot(times, history.wan)
        panes[2].axhline(1.0, color="black", linestyle=":")
        panes[2].set_ylabel("copies over the WAN")
        panes[2].set_ylim(bottom=0)
    panes[-1].set_xlabel("seconds")
    panes[-1].set_xlim(left=0)
    for pane in panes:
        pane.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _title(report: Report) -> str:
    text = f"{report.devices} devices, {report.bytes / (1 << 20):.0f} MiB"
    if report.ratio is not None:
        text += f": {report.ratio:.3f} times the bound"
    copies = report.holder_copies if report.wan_copies is None else report.wan_copies
    if copies is not None:
        text += f", {copies:.3f} copies"
    return text


def _draw_progress(pane: Axes, history: History) -> None:
    rows = list(history.progress.values())
    if len(rows) <= _MOST_LINES:
        for row in rows:
            pane.plot(history.times, _percent(row), linewidth=1)
        pane.plot([], [], color="grey", label="each device")
        return
    columns = [sorted(column) for column in zip(*rows, strict=True)]
    last = len(rows) - 1
    found = {p: _percent([c[last * p // 100] for c in columns]) for p in _PERCENTILES}
    pane.fill_between(history.times, found[0], found[100], alpha=0.15, label="all")
    pane.fill_between(
        history.times, found[10], found[90], alpha=0.3, label="four fifths"
    )
    pane.plot(history.times, found[50], label="median device")
    pane.plot(history.times, found[0], linewidth=1, label="last device")


def _percent(shares: list[float]) -> list[float]:
    return [100 * share for share in shares]
