"""A site in the lab: devices on a LAN, and an origin behind a gateway's uplink.

Devices run the real commands in namespaces of their own. What crosses the uplink is
counted by the kernel, at the gateway's interface to it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2p.agent.config import AgentConfig
from p2p.cli.local_api import ask
from p2p.errors import AgentError
from tests.lab.lines import Lines
from tests.lab.namespaces import Host, Lab, open_lab
from tests.oracle import Ostree, closure, dangling, walk_objects
from tests.pulls import REF, REMOTE, Publisher, command, environment, p2p

PATIENCE_SECONDS = 90.0
"""Enough for an honest machine under load; nothing waits for it to pass."""
_LOOK_AGAIN_SECONDS = 0.1


def until(condition: Callable[[], bool], what: Callable[[], object] = str) -> None:
    """Wait until something outside this process is so; else say what is."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"it never came; {what()}")
        time.sleep(_LOOK_AGAIN_SECONDS)


@dataclass
class Device:
    """A host with a repository that trusts the site's publisher.

    Attributes:
        host: where it is.
        path: of its repository, and beside it what its agent keeps.
        process: what runs there, if anything.
        prefix: what its commands are run by.

    """

    host: Host
    path: Path
    process: "subprocess.Popen[str] | None" = None
    prefix: tuple[str, ...] = ()
    _lines: Lines = field(init=False, repr=False)

    @property
    def repo(self) -> Path:
        return self.path / "repo"

    @property
    def log(self) -> str:
        """What its commands complained of."""
        return (self.path / "log").read_text()

    def _start(self, *arguments: object) -> None:
        self._launch(command(*arguments))

    def _launch(self, words: Sequence[str]) -> None:
        with (self.path / "log").open("a") as log:
            self.process = self.host.start(
                *self.prefix,
                *words,
                stderr=log,
                environment=environment(),
            )
        self._lines = Lines(self.process)

    def _line(self) -> str:
        """The next line it prints; what it complained of if there is none."""
        assert self.process is not None
        try:
            line = self._lines.next(PATIENCE_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.log}") from None
        if line is None:
            status = self.process.wait(PATIENCE_SECONDS)
            raise AssertionError(f"ended with {status}: {self.log}")
        return line

    @property
    def pid(self) -> int:
        """Of what runs there."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether anything runs there, and has not ended."""
        return self.process is not None and self.process.poll() is None

    # -- p2p serve, p2p pull ---------------------------------------------------------

    def serve(self, *options: str) -> None:
        """Share what is there."""
        self._start("serve", f"--repo={self.repo}", *options)
        assert self._line().startswith("sharing ")

    def start_pull(self, *arguments: str, ref: str = REF) -> None:
        """Begin to pull; it goes on sharing until it is ended."""
        options = ("--json", "--share-for=600", *arguments)
        self._start("pull", f"--repo={self.repo}", *options, REMOTE, ref)

    def pulled(self) -> Any:
        """What the pull says once it is complete."""
        result = self.ended()
        assert "error" not in result, result
        return result

    def ended(self) -> Any:
        """What the pull says once it is complete or has given up."""
        return json.loads(self._line())

    def signal(self, number: int) -> None:
        """Send a signal to what runs there."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End what runs there without a word: nothing is written, sent or said."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    # -- p2p agent ---------------------------------------------------------------------

    def start_agent(self, site: "Site", *options: str, ref: str = REF) -> None:
        """Have it follow a branch; until `until_ready` it is not there yet."""
        self._start(
            "agent",
            f"--config={self._config}",
            f"--repo={self.repo}",
            f"--state={self.path}/state",
            f"--key={site.publisher.public}",
            *("--poll=3600", "--log-level=warning", *options),
            *("--follow", site.url, ref),
        )

    def start_idle_agent(
        self, *options: str, follow: str | None = None, compress: bool = True
    ) -> None:
        """Have an agent look for neighbours, and follow nothing yet, or this."""
        self._start("agent", *self._settings(follow, compress=compress), *options)

    def start_bent(self, conduct: str, *, follow: str) -> None:
        """Have an agent that misbehaves share what it has; see `bad_holder`."""
        program = [sys.executable, "-P", "-m", "tests.lab.bad_holder", conduct]
        self._launch([*program, "agent", *self._settings(follow)])

    def _settings(
        self, follow: str | None, *, compress: bool = True
    ) -> tuple[str, ...]:
        config = "[share]\nenabled = true\n"
        if not compress:
            config += "[neighbours]\ncompress = false\n"
        if follow is not None:
            config += f'[[follow]]\nref = "{follow}"\n'
        self._config.write_text(config)
        return (
            f"--config={self._config}",
            f"--repo={self.repo}",
            f"--state={self.path}/state",
            "--poll=3600",
            "--log-level=warning",
        )

    def until_ready(self) -> None:
        """Wait until the agent's socket answers."""
        assert self._line().startswith("agent ready at ")
        assert "starting" not in self.status()

    @property
    def _config(self) -> Path:
        """An empty configuration, in place of this machine's."""
        path = self.path / "agent.toml"
        path.touch()
        return path

    @property
    def _socket(self) -> AgentConfig:
        """Where its agent answers."""
        state = str(self.path / "state")
        socket = f"{state}/agent.sock"
        return AgentConfig(repo=str(self.repo), state=state, socket=socket)

    def command(self, path: str, body: dict[str, Any]) -> Any:
        """Have its agent do something."""
        return ask(self._socket, path, body)

    def _ask(self, path: str, default: Any) -> Any:
        try:
            return ask(self._socket, path)
        except AgentError:
            return default

    def status(self) -> Any:
        """What the agent says of itself; nothing before it answers."""
        return self._ask("/status", {"branches": [], "starting": True})

    def peers(self) -> dict[str, Any]:
        """Whom the agent meets, by device."""
        peers = self._ask("/peers", {"peers": []})["peers"]
        return {peer["device"]: peer for peer in peers}

    def peers_ended(self) -> list[dict[str, Any]]:
        """Why sessions of its agent ended so far."""
        ended: list[dict[str, Any]] = self._ask("/peers", {"ended": []})["ended"]
        return ended

    @property
    def last(self) -> Any:
        """What came of its agent's last check of the branch, None before."""
        branches = self.status()["branches"]
        return branches[0]["last"] if branches else None

    def has_pulled(self) -> bool:
        last = self.last
        return last is not None and not last["error"]

    @property
    def share_here(self) -> float:
        """How much of what its agent pulls is here, from 0 to 1."""
        branches = self.status()["branches"]
        if not branches:
            return 0.0
        pull = branches[0]["pull"]
        if pull is None:
            return 1.0 if branches[0]["commit"] else 0.0
        return float(pull["staged_objects"] / max(pull["total_objects"], 1))

    # -- what became of it -----------------------------------------------------------

    def has_published(self, commit: str, ref: str = REF) -> bool:
        """Whether the remote's branch names a commit; cheap enough to ask often."""
        path = self.repo / "refs" / "remotes" / REMOTE / ref
        try:
            return path.read_text().strip() == commit
        except FileNotFoundError:
            return False

    def has(self, commit: str) -> bool:
        return any(c == commit for c in _refs(self.repo))

    def check(self, commit: str) -> None:
        """Check the whole repository with the independent walker."""
        report = walk_objects(self.repo)
        assert not report.problems, "\n".join(report.problems[:20])
        found = closure(self.repo, commit)
        assert found.reachable
        assert not found.missing, f"{self.host.name} lacks {len(found.missing)}"
        assert not dangling(self.repo)
        assert self.has(commit)


def _refs(repo: Path) -> Iterator[str]:
    for path in (repo / "refs").rglob("*"):
        if path.is_file():
            yield path.read_text().strip()


@dataclass
class Site:
    """The devices, their gateway, and the origin behind it."""

    lab: Lab
    path: Path
    publisher: Publisher
    gateway: Host
    origin: Host
    treehub: "subprocess.Popen[str]"
    url: str

    def device(self, name: str, host: Host | None = None) -> Device:
        """Add a device to the LAN, or to a host of one that is there already."""
        if host is None:
            host = self.lab.host(name)
            host.run("ip", "route", "add", "default", "via", self.gateway.address)
        path = self.path / name
        path.mkdir()
        device = Device(host, path)
        p2p("init", f"--repo={device.repo}", "--mode=bare-user").check()
        verify = f"--sign-verify=ed25519=file:{self.publisher.public}"
        add = ("remote", "add", f"--repo={device.repo}", REMOTE, self.url, verify)
        p2p(*add).check()
        return device

    def devices(self, count: int) -> list[Device]:
        return [self.device(f"d{number}") for number in range(count)]

    def pull_by_stock(self, *refs: str) -> int:
        """Have stock ostree pull all; how much came through the uplink for it."""
        device = self.device("stock")
        stock = Ostree(
            device.repo, prefix=["ip", "netns", "exec", device.host.namespace]
        )
        before = self.uplink_bytes()
        stock.remote_add("plain", self.url)
        stock.pull("plain", *refs)
        return self.uplink_bytes() - before

    def holder(self, name: str) -> Device:
        """A device that has everything already, as if it had pulled it before."""
        device = self.device(name)
        stock = Ostree(device.repo)
        for ref, commit in self.publisher.repo.refs.all():
            stock.pull_local(self.publisher.path, ref.removeprefix("heads/"))
            branch = ref.removeprefix("heads/")
            stock.run("refs", f"--create={REMOTE}:{branch}", commit)
            stock.run("refs", "--delete", branch)
        return device

    def uplink_bytes(self) -> int:
        """How much came through the uplink so far, as on a wire."""
        return self.origin.wire_bytes()

    def requests(self) -> list[dict[str, Any]]:
        """What the origin was asked for, as `p2p treehub --access-log` writes it."""
        lines = (self.publisher.path.parent / "access.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def start_origin(self) -> None:
        """Start the origin, again if need be."""
        self.treehub = _start_treehub(self.origin, self.publisher.path)

    def stop_origin(self) -> None:
        """End the origin as a crash would: connections are refused from now on."""
        self.treehub.kill()
        self.treehub.wait(PATIENCE_SECONDS)

    def lose_uplink(self) -> None:
        """Let the uplink swallow everything: nobody is told anything."""
        self.origin.unplug()


def _start_treehub(host: Host, store: Path) -> "subprocess.Popen[str]":
    listen = f"--listen={host.address}:80"
    log = f"--access-log={store.parent / 'access.log'}"
    process = host.start(
        *command("treehub", f"--store={store}", listen, log), environment=environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@contextmanager
def open_site(path: Path, *, uplink: str, lan: str | None = None) -> Iterator[Site]:
    """Make a site whose links have these rates, with nothing published yet."""
    with open_lab() as lab:
        gateway = lab.host("gateway")
        lab.attach(gateway, "eth1", "gateway1", "wan")
        origin = lab.host("origin", bridge="wan", network="10.8.0")
        inside = ("ip", "address", "add", "10.8.0.254/24", "dev", "eth1")
        gateway.run(*inside)
        gateway.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        origin.run("ip", "route", "add", "default", "via", "10.8.0.254")
        origin.shape(uplink)
        lab.rate = lan
        publisher = Publisher.create(path)
        treehub = _start_treehub(origin, publisher.path)
        url = f"http://{origin.address}"
        yield Site(lab, path, publisher, gateway, origin, treehub, url)


def check_all(devices: Iterable[Device], commit: str) -> None:
    """Check that each has all of a commit, and nothing wrong."""
    for device in devices:
        device.check(commit)
