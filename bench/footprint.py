"""What an agent costs that has nothing to do: memory, processor, and its start.

Run as root: `python -m bench.footprint [--seconds=60]`. In network namespaces, with
mDNS: an origin, and two agents with a writer process each, which pull a branch and
meet. One of them is looked at, after a fresh start and an update to a newer commit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.contest import process_cpu
from tests.lab.site import Device, Site, open_site, until
from tests.pulls import spawn
from tests.trees import MIB, change_files, random_tree

_STARTS = 5
_FILES = 2000
_OPTIONS = ("--writer=process", "--poll=10")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process in MB: resident, its share of that, its own alone."""

    resident: float
    proportional: float
    private: float

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Read it."""
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {key: int(value) for key, value, *_ in map(str.split, lines)}
        private = kib["Private_Clean:"] + kib["Private_Dirty:"]
        return cls(kib["Rss:"] / 1024, kib["Pss:"] / 1024, private / 1024)

    def __str__(self) -> str:
        """Return the columns of the table."""
        return f"{self.resident:.1f} | {self.proportional:.1f} | {self.private:.1f}"


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of idling")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("network namespaces need root")
    with (
        tempfile.TemporaryDirectory() as work,
        open_site(Path(work), uplink="100mbit") as site,
    ):
        measure(site, Path(work) / "tree", options.seconds)


def measure(site: Site, tree: Path, seconds: float) -> None:
    """Let two agents of a site meet and update, and look at one."""
    random_tree(tree, seed=1, files=_FILES, size=20 * MIB)
    first = site.publisher.commit(tree)
    watched, other = site.devices(2)
    for device in (watched, other):
        device.start_agent(site, *_OPTIONS)
        until(lambda device=device: device.has(first))  # type: ignore[misc]
    starts = [restart(site, watched) for _ in range(_STARTS)]
    until(lambda: bool(watched.peers()))
    print("| memory, MB | resident | proportional | private |\n|---|---|---|---|")
    agent, writer = processes(watched)
    report("fresh", agent, writer)
    change_files(tree, seed=2, files=100)
    second = site.publisher.commit(tree)
    until(lambda: watched.has(second) and other.has(second))
    report("after an update", agent, writer)
    # The agent's children are counted with it.
    before = process_cpu(agent)
    time.sleep(seconds)  # the time that is measured
    share = (process_cpu(agent) - before) / seconds
    report(f"{seconds:.0f} s later", agent, writer)
    print(
        f"\n| processor, start | |\n|---|---|\n| agent and writer, idle | {share:.2%} |"
    )
    print(f"| agent, until its socket answers | {statistics.median(starts):.2f} s |")
    versions = [ask_version() for _ in range(_STARTS)]
    print(f"| `p2p --version` | {statistics.median(versions):.2f} s |")


def report(when: str, agent: int, writer: int) -> None:
    """Print what both processes have now."""
    print(f"| agent, {when} | {Memory.of(agent)} |")
    print(f"| writer, {when} | {Memory.of(writer)} |", flush=True)


def processes(device: Device) -> tuple[int, int]:
    """Return the process ids of an agent and of its writer."""
    if device.process is None:
        raise RuntimeError("no agent runs")
    agent = device.process.pid
    # Each thread has its own children.
    children = [p.read_text() for p in Path(f"/proc/{agent}/task").glob("*/children")]
    (writer,) = " ".join(children).split()
    return agent, int(writer)


def restart(site: Site, device: Device) -> float:
    """Start an agent anew; return after how many seconds its socket answers."""
    device.kill()
    began = time.monotonic()
    device.start_agent(site, *_OPTIONS)
    device.until_ready()
    return time.monotonic() - began


def ask_version() -> float:
    """Return how long the shortest command takes."""
    began = time.monotonic()
    spawn("--version").check()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
