"""How long agents of one link take to find each other, and what that costs each host.

    python -m tests.lab.discovery --agents=100

Every agent is a real `p2p agent` in a network namespace of its own. All are started
with their cables pulled, because starting them takes far longer than what is measured;
then all cables are put in at once, as when a switch comes back.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from p2p.agent.config import AgentConfig
from p2p.cli.local_api import ask
from p2p.errors import AgentError
from p2p.ostree.config import RepoMode
from p2p.ostree.repo import Repo
from tests.lab.lines import Lines
from tests.lab.meters import cpu_seconds, machine_busy_seconds
from tests.lab.namespaces import Host, Lab, open_lab, room_for_neighbours
from tests.pulls import command, environment

START_SECONDS = 300.0
"""How long all may take to start; nothing waits for it to pass."""
AT_ONCE = 4
LOOK_AGAIN_SECONDS = 1.0
COUNT_AGAIN_SECONDS = 0.2


@dataclass
class Agent:
    """One agent, as the measurement sees it.

    Attributes:
        host: where it runs.
        path: of what it keeps.
        pid: of the agent itself.
        before: packets that its host had received when the cables were put in.

    """

    host: Host
    path: Path
    pid: int = 0
    before: int = 0
    _lines: Lines = field(init=False, repr=False)

    def start(self) -> None:
        config = self.path / "agent.toml"
        config.write_text("[share]\nenabled = true\n")
        with (self.path / "log").open("a") as log:
            process = self.host.start(
                *command(
                    "agent",
                    f"--config={config}",
                    f"--repo={self.path}/repo",
                    f"--state={self.path}/state",
                    "--log-level=warning",
                ),
                stderr=log,
                environment=environment(),
            )
        # `ip netns exec` becomes the command, so this is the agent's own.
        self.pid = process.pid
        self._lines = Lines(process)

    def until_ready(self) -> None:
        line = self._lines.next(START_SECONDS)
        if line is None or not line.startswith("agent ready at "):
            raise RuntimeError(self.log)

    @property
    def log(self) -> str:
        """What it complained of."""
        return (self.path / "log").read_text()

    def packets(self) -> int:
        """How many packets its host received so far."""
        for line in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            name, _, counters = line.partition(":")
            if name.strip() == "eth0":
                return int(counters.split()[1])
        raise RuntimeError("it has no eth0")

    def memory(self) -> int:
        """Bytes of memory that it has resident now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
        raise RuntimeError("it has ended")

    def ask(self, path: str) -> Any:
        """What it answers to a command."""
        state = f"{self.path}/state"
        config = AgentConfig(repo=state, state=state, socket=f"{state}/agent.sock")
        return ask(config, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """What discovery came to.

    Attributes:
        agents: how many there were.
        found: seconds until the last one knew all others.
        median: the same until half of them did.
        packets: the most packets that a host received until its agent did.
        mean_packets: the mean of all hosts.
        settled: seconds until each had sessions enough, and all were of one site.
        met: seconds until the last session came up that was still there at the end.
        fewest, most, mean: sessions of an agent in the end.
        parts: into how many parts the sessions leave the site; 1 is one site.
        memory: the largest agent's resident memory.
        cpu: seconds of a processor that an agent used until all settled, on average.
        busy: the processors' time of everything until then, as a share of them all.
        idle_cpu: share of a processor that an agent uses afterwards, on average.
        idle_packets: packets a second that a host receives afterwards, on average.

    """

    agents: int
    found: float
    median: float
    packets: int
    mean_packets: float
    settled: float
    met: float
    fewest: int
    most: int
    mean: float
    parts: int
    memory: int
    cpu: float
    busy: float
    idle_cpu: float | None = None
    idle_packets: float | None = None


@dataclass
class _Watch:
    """What was seen of each agent, by its number."""

    devices: list[str]
    found: dict[int, float] = field(default_factory=dict)
    counted: list[tuple[float, list[int]]] = field(default_factory=list)
    peers: dict[int, Any] = field(default_factory=dict)
    met: float = 0.0

    def packets(self) -> list[int]:
        """Of each agent, how many came to its host until it knew all others."""
        return [
            next(counts[number] for when, counts in self.counted if when >= found)
            for number, found in sorted(self.found.items())
        ]


def discover(count: int, *, seconds: float = 60.0, idle: float = 0.0) -> Discovered:
    """Have agents find each other.

    Args:
        count: how many.
        seconds: after which whoever does not know all others never will.
        idle: for how many seconds to watch them afterwards.

    """
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(room_for_neighbours(count))
        lab = stack.enter_context(open_lab())
        agents = [_agent(lab, path, number) for number in range(count)]
        for number in range(0, count, AT_ONCE):
            some = agents[number : number + AT_ONCE]
            for agent in some:
                agent.start()
            for agent in some:
                agent.until_ready()
        return _measure(lab, agents, seconds, idle)


def _agent(lab: Lab, path: Path, number: int) -> Agent:
    name = f"a{number}"
    host = lab.host(name)
    host.unplug()
    (path / name).mkdir()
    Repo.init(path / name / "repo", RepoMode.BARE_USER)
    return Agent(host, path / name)


def _measure(lab: Lab, agents: list[Agent], seconds: float, idle: float) -> Discovered:
    for agent in agents:
        agent.before = agent.packets()
    devices = [agent.ask("/status")["device"] for agent in agents]
    cpu, busy = _cpu(agents), machine_busy_seconds()
    plugs = "".join(f"link set {agent.host.name} up\n" for agent in agents)
    began = time.monotonic()
    lab.switch("sh", "-c", f"echo '{plugs}' | ip -batch -")
    watch = _Watch(devices)
    while len(watch.found) < len(agents) or not _is_settled(watch, agents):
        if time.monotonic() > began + seconds:
            raise TimeoutError(f"only {len(watch.found)} know all others")
        look_at = time.monotonic() + LOOK_AGAIN_SECONDS
        while time.monotonic() < look_at:
            time.sleep(COUNT_AGAIN_SECONDS)
            _count(watch, agents, began)
        _look(watch, agents, began)
    took = time.monotonic() - began
    cpu, busy = _cpu(agents) - cpu, machine_busy_seconds() - busy
    time.sleep(COUNT_AGAIN_SECONDS)
    _count(watch, agents, began)
    degrees = [len(watch.peers[number]["peers"]) for number in range(len(agents))]
    used, came = _idle(agents, idle) if idle else (None, None)
    return Discovered(
        agents=len(agents),
        found=round(max(watch.found.values()), 2),
        median=round(statistics.median(watch.found.values()), 2),
        packets=max(watch.packets()),
        mean_packets=round(statistics.mean(watch.packets())),
        settled=round(took, 2),
        met=round(watch.met, 2),
        fewest=min(degrees),
        most=max(degrees),
        mean=round(statistics.mean(degrees), 1),
        parts=len(list(_parts(watch))),
        memory=max(agent.memory() for agent in agents),
        cpu=round(cpu / len(agents), 2),
        busy=round(busy / took / 2, 2),
        idle_cpu=used,
        idle_packets=came,
    )


def _count(watch: _Watch, agents: list[Agent], began: float) -> None:
    """Count what came to all hosts so far, unless that was done just now."""
    now = time.monotonic() - began
    if not watch.counted or now >= watch.counted[-1][0] + COUNT_AGAIN_SECONDS:
        counts = [agent.packets() - agent.before for agent in agents]
        watch.counted.append((now, counts))


def _look(watch: _Watch, agents: list[Agent], began: float) -> None:
    """Ask all agents whom they know and meet, and since when."""
    for number, agent in enumerate(agents):
        _count(watch, agents, began)
        try:
            peers = agent.ask("/peers")
        except AgentError as error:
            raise RuntimeError(f"{error}: {agent.log}") from None
        now = time.monotonic() - began
        watch.peers[number] = peers
        if number not in watch.found and len(peers["known"]) == len(agents) - 1:
            watch.found[number] = now - min(one["seconds"] for one in peers["known"])
        since = min((one["seconds"] for one in peers["peers"]), default=now)
        watch.met = max(watch.met, now - since)


def _is_settled(watch: _Watch, agents: list[Agent]) -> bool:
    """Tell whether each has sessions enough, and all are of one site."""
    enough = min(len(agents) - 1, 10)
    met = [len(watch.peers[n]["peers"]) for n in range(len(agents))]
    return min(met) >= enough and len(list(_parts(watch))) == 1


def _parts(watch: _Watch) -> Iterator[set[str]]:
    """Yield the parts of the site that no session connects, as sets of devices."""
    links = {
        watch.devices[number]: {one["device"] for one in peers["peers"]}
        for number, peers in watch.peers.items()
    }
    while links:
        part, edge = set[str](), {next(iter(links))}
        while edge:
            part |= edge
            edge = set().union(*(links.pop(one, set()) for one in edge)) - part
        yield part


def _idle(agents: list[Agent], seconds: float) -> tuple[float, float]:
    """Return what an agent uses and gets while nothing happens."""
    cpu, packets = _cpu(agents), sum(agent.packets() for agent in agents)
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    cpu, packets = _cpu(agents) - cpu, sum(a.packets() for a in agents) - packets
    share = len(agents) * took
    return round(cpu / share, 4), round(packets / share, 1)


def _cpu(agents: list[Agent]) -> float:
    return sum(cpu_seconds(agent.pid) for agent in agents)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab.discovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60, help="at most")
    parser.add_argument("--idle", type=float, default=0, help="seconds afterwards")
    options = parser.parse_args()
    found = discover(options.agents, seconds=options.seconds, idle=options.idle)
    print(json.dumps(asdict(found), indent=1))


if __name__ == "__main__":
    main()
