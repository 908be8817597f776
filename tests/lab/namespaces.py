"""Hosts on one link, each a network namespace, joined by a bridge in another one.

Everything is inside namespaces whose names are this run's own, so runs beside each
other do not meet, nothing of the machine's own network changes, and deleting the
namespaces deletes all. Needs root and iproute2.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.require import require

_RUNS = itertools.count()
_END_SECONDS = 5


@dataclass
class Host:
    """One machine of the lab.

    Attributes:
        name: short, also of its port on the bridge.
        namespace: what `ip netns` calls it.
        address: IPv4 address on its link.

    """

    name: str
    namespace: str
    address: str
    _lab: "Lab"
    _processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    def run(self, *command: str) -> str:
        """Run a command there; its output."""
        return _run("ip", "netns", "exec", self.namespace, *command)

    def start(
        self,
        *command: str,
        stderr: int | IO[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        """Start a process there, killed with the lab if it still runs then."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | (environment or {}),
        )
        self._processes.append(process)
        return process

    def python(
        self, module: str, *arguments: str, stderr: int | IO[str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start a module of this project there."""
        root = Path(__file__).parents[2]
        return self.start(
            sys.executable,
            "-m",
            module,
            *arguments,
            stderr=stderr,
            environment={"PYTHONPATH": str(root)},
        )

    def plug(self) -> None:
        """Put its cable in."""
        self._lab.switch("ip", "link", "set", self.name, "up")

    def unplug(self) -> None:
        """Pull its cable: the host sees no carrier, and nobody gets a FIN."""
        self._lab.switch("ip", "link", "set", self.name, "down")

    def isolate(self) -> None:
        """Keep it from other isolated hosts, as Wi-Fi client isolation does."""
        self._lab.switch("bridge", "link", "set", "dev", self.name, "isolated", "on")

    def shape(self, rate: str) -> None:
        """Limit what it sends and gets, for example "80mbit"."""
        limit = ("tbf", "rate", rate, "burst", "64kb", "latency", "50ms")
        self.run("tc", "qdisc", "replace", "dev", "eth0", "root", *limit)
        self._lab.switch("tc", "qdisc", "replace", "dev", self.name, "root", *limit)

    def packets_received(self) -> int:
        """How many packets its interface got so far."""
        path = "/sys/class/net/eth0/statistics/rx_packets"
        return int(self.run("cat", path))

    def received_bytes(self, interface: str = "eth0") -> int:
        """How many bytes an interface got so far, headers included."""
        path = f"/sys/class/net/{interface}/statistics/rx_bytes"
        return int(self.run("cat", path))

    def wire_bytes(self) -> int:
        """How many bytes it sent so far through its limited link, as on a wire.

        An interface counts what the kernel cuts into packets later as one packet with
        one header; the queue in front of it counts the headers of all.
        """
        said = self.run("tc", "-statistics", "-json", "qdisc", "show", "dev", "eth0")
        return sum(queue["bytes"] for queue in json.loads(said) if queue.get("root"))

    def sent_bytes(self, interface: str = "eth0") -> int:
        """How many bytes an interface sent so far, headers included."""
        path = f"/sys/class/net/{interface}/statistics/tx_bytes"
        return int(self.run("cat", path))

    def end(self) -> None:
        """End what runs there."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(_END_SECONDS)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


class Lab:
    """A bridge and the hosts on it; `open_lab` makes one.

    Attributes:
        hosts: in the order they were added.
        rate: what the links of hosts to come are limited to, if at all.

    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._prefix = f"p2p{os.getpid()}-{next(_RUNS)}"
        self.hosts: list[Host] = []
        self.rate: str | None = None
        self._bridges: set[str] = set()
        self._switch = self._namespace("switch")

    def switch(self, *command: str) -> str:
        """Run a command where the bridges are."""
        return _run("ip", "netns", "exec", self._switch, *command)

    def host(self, name: str, *, bridge: str = "br0", network: str = "10.9.0") -> Host:
        """Add a host to a bridge, with an IPv4 address there and a link-local one.

        Other bridges and networks make other links: nothing is routed between.
        """
        number = len(self.hosts) + 1
        host = Host(name, self._namespace(name), f"{network}.{number}", self)
        self.hosts.append(host)
        self._stack.callback(host.end)
        self.attach(host, "eth0", name, bridge)
        host.run(
            "ip", "address", "add", f"{host.address}/24", "dev", "eth0", "brd", "+"
        )
        if self.rate is not None:
            host.shape(self.rate)
        return host

    def attach(self, host: Host, interface: str, port: str, bridge: str) -> None:
        """Give a host an interface on a bridge, up and without an IPv4 address."""
        if bridge not in self._bridges:
            self._bridges.add(bridge)
            # Without a querier a bridge that snoops forgets who listens.
            options = ("mcast_snooping", "0")
            self.switch("ip", "link", "add", bridge, "type", "bridge", *options)
            self.switch("ip", "link", "set", bridge, "up")
        peer = ("peer", "name", interface, "netns", host.namespace)
        self.switch("ip", "link", "add", port, "type", "veth", *peer)
        self.switch("ip", "link", "set", port, "master", bridge, "up")
        host.run("ip", "link", "set", interface, "up")

    def _namespace(self, name: str) -> str:
        namespace = f"{self._prefix}-{name}"
        _run("ip", "netns", "add", namespace)
        self._stack.callback(_run, "ip", "netns", "delete", namespace)
        inside = ("ip", "netns", "exec", namespace)
        # Duplicate address detection would keep link-local addresses back for 2 s, and
        # there is no router to ask for.
        settings = "/proc/sys/net/ipv6/conf/default"
        for setting in ("accept_dad", "router_solicitations"):
            _run(*inside, "sh", "-c", f"echo 0 > {settings}/{setting}")
        _run(*inside, "ip", "link", "set", "lo", "up")
        return namespace


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Make a lab for the time of the block; skip the test where that cannot be."""
    require("root", "ip", "tc", "bridge", "netns")
    with ExitStack() as stack:
        yield Lab(stack)


@contextmanager
def room_for_neighbours(hosts: int) -> Iterator[None]:
    """Let the kernel know the addresses of so many hosts in each of them.

    All namespaces share one table, of 1,024 entries if nobody sets it; whoever is not
    in it cannot be connected to. It is set back afterwards.
    """
    needed = 8 * hosts * hosts
    paths = [
        Path(f"/proc/sys/net/{family}/neigh/default/gc_thresh{number}")
        for family in ("ipv4", "ipv6")
        for number in (3, 2, 1)
    ]
    before = {path: path.read_text() for path in paths}
    try:
        for path in paths:
            path.write_text(str(max(needed, int(before[path]))))
        yield
    finally:
        for path in reversed(paths):
            path.write_text(before[path])


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(command)
        raise RuntimeError(f"{words} ended with {done.returncode}: {done.stderr}")
    return done.stdout
