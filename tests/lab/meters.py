"""Counters of the kernel, read often and cheaply: bytes of links, processor, memory."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Link:
    """Bytes that an interface got and sent so far, headers included."""

    received: int
    sent: int

    def __sub__(self, before: "Link") -> "Link":
        return Link(self.received - before.received, self.sent - before.sent)


def read_link(pid: int, interface: str = "eth0") -> Link:
    """Read an interface of the network namespace that a process lives in."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == interface:
            fields = counters.split()
            return Link(int(fields[0]), int(fields[8]))
    raise ValueError(f"process {pid} has no interface {interface}")


@dataclass(frozen=True, slots=True)
class Segments:
    """TCP segments that a network namespace sent so far, and those it sent again."""

    sent: int
    resent: int

    def __sub__(self, before: "Segments") -> "Segments":
        return Segments(self.sent - before.sent, self.resent - before.resent)


def read_segments(pid: int) -> Segments:
    """Read the TCP counters of the network namespace that a process lives in."""
    lines = Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    counters = dict(zip(names, values, strict=True))
    return Segments(int(counters["OutSegs"]), int(counters["RetransSegs"]))


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of the children it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK


def machine_busy_seconds() -> float:
    """Return the processor time that the whole machine spent on anything."""
    fields = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) * _TICK


def peak_memory(pid: int) -> int:
    """Return the most bytes of memory that a process ever had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise ValueError(f"process {pid} has no memory")
