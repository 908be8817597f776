"""Runs rival commands in turn and compares them: wall, processor time, memory.

Every figure is the median of several rounds; within a round each rival runs once, so
that a machine that slows down slows all of them.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.mounts import mount_loop_ext4, mount_tmpfs
from tests.trees import MIB


@dataclass(frozen=True, slots=True)
class Run:
    """One run: seconds of wall and processor time, peak memory in MiB.

    `served` is the processor time of the server that it drew on.
    """

    wall: float
    cpu: float
    memory: float
    served: float = 0.0


@dataclass(slots=True)
class Rival:
    """A contender.

    Attributes:
        name: for the table.
        prepare: makes what the command needs and returns the command.
        server: process id of the server that it draws on, if there is one.
        runs: what was measured.

    """

    name: str
    prepare: Callable[[Path], Sequence[str]]
    server: int | None = None
    runs: list[Run] = field(default_factory=list)

    def median(self, what: str) -> float:
        """Return the median of `wall`, `cpu`, `memory` or `served`."""
        return statistics.median(getattr(run, what) for run in self.runs)


def measure(command: Sequence[str], *, sync: Path, server: int | None = None) -> Run:
    """Run a command to its end, and the write-back of what it wrote.

    The processor time is that of the command and of all it waited for.
    """
    before = 0.0 if server is None else process_cpu(server)
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
    wall = time.monotonic() - started
    served = 0.0 if server is None else process_cpu(server) - before
    return Run(wall, _cpu(usage), usage.ru_maxrss / 1024, served)


def process_cpu(pid: int) -> float:
    """Return the processor seconds of a process and its children that live."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(path.parent.name) == pid or int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _cpu(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def table(title: str, rivals: Sequence[Rival]) -> str:
    """Return a Markdown table; ratios are against the first rival."""
    first = rivals[0]
    lines = [
        f"### {title}",
        "",
        "| | wall s | ratio | min-max | CPU s | server's CPU s | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for rival in rivals:
        walls = [run.wall for run in rival.runs]
        lines.append(
            f"| {rival.name} | {rival.median('wall'):.2f} "
            f"| {rival.median('wall') / first.median('wall'):.2f} "
            f"| {min(walls):.2f}-{max(walls):.2f} "
            f"| {rival.median('cpu'):.2f} | {rival.median('served'):.2f} "
            f"| {rival.median('memory'):.0f} |"
        )
    return "\n".join([*lines, ""])


def contest(
    title: str, rivals: Sequence[Rival], *, filesystem: str, rounds: int, work: Path
) -> None:
    """Let the rivals run in turn, each on a fresh filesystem, and print the table."""
    for _ in range(rounds):
        for rival in rivals:
            with fresh(filesystem, work) as point:
                command = rival.prepare(point)
                subprocess.run(["sync", "-f", point], check=True)
                run = measure(command, sync=point, server=rival.server)
                rival.runs.append(run)
    print(table(f"{title}, {filesystem}, {rounds} rounds", rivals), flush=True)


@contextmanager
def fresh(filesystem: str, work: Path) -> Iterator[Path]:
    """Yield an empty filesystem: `tmpfs`, or `ext4` on a loop device."""
    mount = mount_tmpfs if filesystem == "tmpfs" else mount_loop_ext4
    with (
        tempfile.TemporaryDirectory(dir=work) as directory,
        mount(Path(directory), 2048 * MIB) as point,
    ):
        yield point
