"""Runs rival commands in turn and compares them: wall, processor time, memory.

Every figure is the median of several rounds; within a round each rival runs once, so
that a machine that slows down slows all of them.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Run:
    """One run: seconds of wall and processor time, peak memory in MiB."""

    wall: float
    cpu: float
    memory: float


@dataclass(slots=True)
class Rival:
    """A contender.

    Attributes:
        name: for the table.
        prepare: makes what the command needs and returns the command.
        runs: what was measured.

    """

    name: str
    prepare: Callable[[Path], Sequence[str]]
    runs: list[Run] = field(default_factory=list)

    def median(self, what: str) -> float:
        """Return the median of `wall`, `cpu` or `memory`."""
        return statistics.median(getattr(run, what) for run in self.runs)


def measure(command: Sequence[str], *, sync: Path) -> Run:
    """Run a command to its end, and the write-back of what it wrote.

    The processor time is that of the command and of all it waited for.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ
    )
    if process.stderr is None:
        raise RuntimeError("no pipe")
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {errors.decode()}")
    subprocess.run(["sync", "-f", sync], check=True)
    return Run(time.monotonic() - started, _cpu(usage), usage.ru_maxrss / 1024)


def _cpu(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def table(title: str, rivals: Sequence[Rival]) -> str:
    """Return a Markdown table; ratios are against the first rival."""
    first = rivals[0]
    lines = [
        f"### {title}",
        "",
        "| | wall s | ratio | min-max | CPU s | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for rival in rivals:
        walls = [run.wall for run in rival.runs]
        lines.append(
            f"| {rival.name} | {rival.median('wall'):.2f} "
            f"| {rival.median('wall') / first.median('wall'):.2f} "
            f"| {min(walls):.2f}-{max(walls):.2f} "
            f"| {rival.median('cpu'):.2f} | {rival.median('memory'):.0f} |"
        )
    return "\n".join([*lines, ""])
