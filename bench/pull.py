"""A full and an incremental pull from one neighbour, against other ways to copy.

Run as root: `python -m bench.pull`. The tree is a real Debian one. A neighbour serves
it over TLS on loopback to `p2p pull`; nginx serves the same commit to `ostree pull`;
rsync and cp copy the neighbour's repository file by file. Repositories are bare-user,
on a fresh ext4 (loop device) or tmpfs for each run; the write-back of what was written
is counted. The running agent's time is what it says itself of its update.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.contest import Rival, contest, fresh
from bench.pull_origin import make_origin, stock
from tests.oracle import Ostree
from tests.servers import run_nginx

_P2P = [sys.executable, "-m", "p2p"]
AGENT = """\
repo = "{directory}/repo"
state = "{directory}/state"
socket = "{directory}/agent.sock"
writer = "{writer}"
[neighbours]
mdns = false
listen = "127.0.0.1:0"
peers = ["127.0.0.1:{port}"]
[share]
enabled = true
[origin]
poll-seconds = 3600
[[follow]]
ref = "up:os"
"""


@dataclass(frozen=True, slots=True)
class Site:
    """What all rivals draw on.

    Attributes:
        origin: repository of nginx.
        key: whose signature both commits have; `ostree pull` does not check it.
        first, second: two commits, 140 files apart.
        url: of nginx, which serves them.
        holder: repository of a neighbour that has both.
        port: where it serves them.
        server: the process that serves there.

    """

    origin: Path
    key: Path
    first: str
    second: str
    url: str
    holder: Path
    port: int
    server: int

    def init(self, repo: str) -> None:
        """Make a device's repository; `repo` is the option that names it."""
        run(*_P2P, "init", repo, "--mode=bare-user")
        verify = f"--sign-verify=ed25519=file:{self.key}"
        run(*_P2P, "remote", "add", repo, "up", self.url, verify)


def run(*command: str) -> str:
    """Run a command; return what it printed."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


@contextmanager
def open_site(work: Path) -> Iterator[Site]:
    """Make the repositories and start the two servers."""
    run(*_P2P, "keygen", str(work / "keys"))
    origin, first, second = make_origin(work, sign_key=work / "keys" / "signing.key")
    holder = Ostree.init(work / "holder", "bare-user")
    for commit in (first, second):
        holder.run("pull-local", str(origin), commit)
    holder.run("refs", "--create=before", first)
    holder.run("refs", "--create=os", second)
    serve = [*_P2P, "serve", f"--repo={work / 'holder'}", "--no-mdns"]
    with (
        run_nginx(origin, work=work / "nginx") as nginx,
        subprocess.Popen(
            [*serve, "--listen=127.0.0.1:0"], stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        try:
            if server.stdout is None:
                raise RuntimeError("no pipe")
            port = int(server.stdout.readline().rpartition(" ")[2])
            yield Site(
                origin=origin,
                key=work / "keys" / "signing.pub",
                first=first,
                second=second,
                url=nginx.url,
                holder=work / "holder",
                port=port,
                server=server.pid,
            )
        finally:
            server.terminate()


def neighbour(site: Site, second: str | None, writer: str) -> Rival:
    """`p2p pull` from the neighbour, and from nobody else."""

    def prepare(directory: Path) -> Sequence[str]:
        repo = f"--repo={directory / 'repo'}"
        site.init(repo)
        peer = [f"--peer=127.0.0.1:{site.port}", "--no-mdns", "--no-origin"]
        pull = [*_P2P, "pull", repo, "up", *peer, f"--writer={writer}"]
        if second is None:
            return [*pull, f"os@{site.first}"]
        run(*pull, f"os@{site.first}")
        return [*pull, f"os@{second}"]

    name = f"p2p pull, writer on a {writer}" if writer == "thread" else "p2p pull"
    return Rival(name, prepare, server=site.server)


def copy(site: Site, *command: str) -> Rival:
    """Copy the neighbour's repository file by file; nothing is checked."""

    def prepare(directory: Path) -> Sequence[str]:
        return [*command, f"{site.holder}/", str(directory / "repo")]

    return Rival(command[0], prepare)


def running_agent(site: Site, writer: str, *, filesystem: str, work: Path) -> float:
    """Return how long an agent that runs needs for the second commit, by its word."""
    head = site.origin / "refs" / "heads" / "os"
    head.write_text(f"{site.first}\n")
    with fresh(filesystem, work) as point:
        repo = f"--repo={point / 'repo'}"
        site.init(repo)
        config = point / "agent.toml"
        config.write_text(AGENT.format(directory=point, port=site.port, writer=writer))
        option = f"--config={config}"
        with subprocess.Popen(
            [*_P2P, "agent", option], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as agent:
            try:
                _until_updated(option, site.first)
                head.write_text(f"{site.second}\n")
                run(*_P2P, "check", option)
                return _until_updated(option, site.second)
            finally:
                agent.terminate()


def _until_updated(option: str, commit: str) -> float:
    """Wait until an agent has a commit; return how long that took it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done = subprocess.run(
            [*_P2P, "status", option, "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        for update in json.loads(done.stdout).get("updates", ()):
            if update["commit"] == commit:
                return float(update["seconds"])
    raise RuntimeError(f"the agent did not come to {commit}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filesystem", choices=["tmpfs", "ext4"], action="append")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = stack.enter_context(open_site(work))
        for filesystem in arguments.filesystem or ["tmpfs", "ext4"]:
            rivals = [
                stock(site.url, site.first, None),
                neighbour(site, None, "thread"),
                neighbour(site, None, "process"),
                copy(site, "rsync", "-a"),
                copy(site, "cp", "-a"),
            ]
            settings = {
                "filesystem": filesystem,
                "rounds": arguments.rounds,
                "work": work,
            }
            contest("Full pull from one neighbour", rivals, **settings)
            rivals = [
                stock(site.url, site.first, site.second),
                neighbour(site, site.second, "thread"),
            ]
            contest("140 files changed, from one neighbour", rivals, **settings)
            seconds = [
                running_agent(site, "thread", filesystem=filesystem, work=work)
                for _ in range(arguments.rounds)
            ]
            print(
                f"The same in a running agent, {filesystem}: median "
                f"{statistics.median(seconds):.2f} s of {seconds}\n",
                flush=True,
            )


if __name__ == "__main__":
    main()
