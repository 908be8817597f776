"""One holder, N devices that lack everything: ours, libtorrent, N x `ostree pull`.

Run as root: `python -m bench.swarm [--devices=8] [--link=80mbit] [--bytes=128]
[--objects=8] [--rounds=3]`. Each rival runs once a round, on the same kind of links:
network namespaces whose links `tc tbf` limits both ways. Bytes are the kernel's; one
copy is what one stock `ostree pull` gets. libtorrent comes with `pip install
libtorrent==2.1.1`; without it that part is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.lab.__main__ import even_tree
from tests.lab.goodput import measure_goodput
from tests.lab.lines import Lines
from tests.lab.meters import cpu_seconds, machine_busy_seconds
from tests.lab.namespaces import Host, Lab, open_lab
from tests.lab.site import until
from tests.lab.trial import Plan, fluid_bound, run_trial
from tests.mounts import mount_tmpfs
from tests.oracle import Ostree
from tests.pulls import REF, REMOTE, Publisher
from tests.require import find_program
from tests.trees import MIB

_PORT = "6881"
_SECONDS = 1800.0
# Content of a full packet of TCP with timestamps, of its bytes on an Ethernet link.
_CONTENT_SHARE = 1448 / 1514


@dataclass(frozen=True, slots=True)
class Result:
    """What one rival came to in one round."""

    ratio: float
    copies: float
    cpu: float
    busy: float


@dataclass(frozen=True, slots=True)
class Task:
    """What all rivals are asked to do."""

    plan: Plan
    tree: Path
    work: Path


def ours(task: Task) -> Result:
    """Real agents, see `tests.lab.trial`."""
    with tempfile.TemporaryDirectory(dir=task.work) as work:
        figures = run_trial(task.plan, Path(work), task.tree)
    sent = figures.holder_copies * figures.copy
    copies = sent * _CONTENT_SHARE / figures.content
    return Result(figures.ratio, copies, figures.cpu, figures.busy)


def libtorrent(task: Task, settings: str) -> Result:
    """One seed and N leechers that know each other from the beginning."""
    from bench.torrent import make_torrent  # noqa: PLC0415 - only where it is installed

    with open_lab() as lab, tempfile.TemporaryDirectory(dir=task.work) as work:
        hosts = _hosts(lab, task.plan)
        goodput = measure_goodput(hosts[0], hosts[1])
        torrent = Path(work) / "torrent"
        make_torrent(task.tree, torrent)
        peers: list[tuple[subprocess.Popen[str], Lines]] = []
        for number, host in enumerate(hosts):
            folder = task.tree.parent if number == 0 else Path(work) / host.name
            folder.mkdir(exist_ok=True)
            words = (settings, str(torrent), str(folder), _PORT)
            process = host.python("bench.torrent", *words)
            peers.append((process, Lines(process)))
        for _, lines in peers:
            if lines.next(60) is None:
                raise RuntimeError("a libtorrent peer ended")
        pids = [process.pid for process, _ in peers]
        return _race(
            task,
            goodput,
            pids,
            hosts[0],
            begin=lambda: [_name_peers(p, hosts) for p, _ in peers],
            finish=lambda: [lines.next(_SECONDS) for _, lines in peers],
        )


def _name_peers(process: subprocess.Popen[str], hosts: list[Host]) -> None:
    if process.stdin is None:
        raise RuntimeError("no pipe")
    process.stdin.write(" ".join(host.address for host in hosts) + "\n")
    process.stdin.flush()


def stock(task: Task) -> Result:
    """N x `ostree pull` at once from nginx on the holder."""
    with open_lab() as lab, tempfile.TemporaryDirectory(dir=task.work) as directory:
        work = Path(directory)
        publisher = Publisher.create(work)
        publisher.commit(task.tree)
        hosts = _hosts(lab, task.plan)
        goodput = measure_goodput(hosts[0], hosts[1])
        nginx = _start_nginx(hosts[0], publisher.path, work)
        repos = [Ostree.init(work / host.name, "bare-user") for host in hosts[1:]]
        for repo in repos:
            repo.remote_add(REMOTE, f"http://{hosts[0].address}", "--no-gpg-verify")
        pulls: list[subprocess.Popen[str]] = []

        def begin() -> None:
            for host, repo in zip(hosts[1:], repos, strict=True):
                words = ("ostree", "pull", f"--repo={repo.repo}", REMOTE, REF)
                pulls.append(host.start(*words, stderr=subprocess.DEVNULL))

        def finish() -> None:
            if any(pull.wait(_SECONDS) for pull in pulls):
                raise RuntimeError("an `ostree pull` failed")

        pids = [nginx.pid]
        return _race(task, goodput, pids, hosts[0], begin=begin, finish=finish)


def _start_nginx(host: Host, root: Path, work: Path) -> subprocess.Popen[str]:
    pid = work / "nginx.pid"
    configuration = (
        f"daemon off; user root; pid {pid}; error_log {work}/nginx.log;"
        "events {} http { access_log off; sendfile on; server {"
        f" listen {host.address}:80; root {root}; }} }}"
    )
    (work / "nginx.conf").write_text(configuration)
    program = find_program("nginx")
    if program is None:
        raise RuntimeError("nginx is not installed")
    words = (program, "-p", str(work), "-c", str(work / "nginx.conf"))
    process = host.start(*words, stderr=subprocess.DEVNULL)
    # It is written once the socket listens.
    until(pid.exists)
    return process


def _hosts(lab: Lab, plan: Plan) -> list[Host]:
    lab.rate = plan.link
    return [lab.host(f"p{number}") for number in range(plan.devices + 1)]


def _race(
    task: Task,
    goodput: float,
    pids: list[int],
    holder: Host,
    *,
    begin: Callable[[], object],
    finish: Callable[[], object],
) -> Result:
    """Time what happens between the two, and count what leaves the holder."""
    size = sum(p.stat().st_size for p in task.tree.rglob("*") if p.is_file())
    sent = holder.wire_bytes()
    cpu = sum(map(cpu_seconds, pids))
    busy = machine_busy_seconds()
    began = time.monotonic()
    begin()
    finish()
    seconds = time.monotonic() - began
    bound = fluid_bound(task.plan, size, goodput)
    return Result(
        ratio=seconds / bound,
        copies=(holder.wire_bytes() - sent) * _CONTENT_SHARE / size,
        cpu=(sum(map(cpu_seconds, pids)) - cpu) / seconds / 2,
        busy=(machine_busy_seconds() - busy) / seconds / 2,
    )


def main() -> None:
    """Let the rivals run in turn and print a table of medians."""
    parser = argparse.ArgumentParser(prog="python -m bench.swarm")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--link", default="80mbit")
    parser.add_argument("--bytes", type=int, default=128, help="in MiB")
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rivals: dict[str, Callable[[Task], Result]] = {"p2p agent": ours}
    if importlib.util.find_spec("libtorrent") is None:
        print("libtorrent is not installed and left out", file=sys.stderr)
    else:
        rivals["libtorrent, default"] = lambda task: libtorrent(task, "default")
        rivals["libtorrent, tuned"] = lambda task: libtorrent(task, "tuned")
    rivals["N x ostree pull from nginx"] = stock
    results: dict[str, list[Result]] = {name: [] for name in rivals}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = stack.enter_context(mount_tmpfs(work, 20480 * MIB))
        tree = work / "content" / "tree"
        even_tree(tree, objects=options.objects, size=options.bytes * MIB)
        task = Task(Plan(devices=options.devices, link=options.link), tree, work)
        for _ in range(options.rounds):
            for name, rival in rivals.items():
                results[name].append(rival(task))
                print(name, results[name][-1], file=sys.stderr, flush=True)
    print(_table(results))


def _table(results: dict[str, list[Result]]) -> str:
    lines = [
        "| | x bound | min-max | copies | CPU | machine |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        ratios = [run.ratio for run in runs]
        median = statistics.median
        lines.append(
            f"| {name} | {median(ratios):.2f} | {min(ratios):.2f}-{max(ratios):.2f} "
            f"| {median(run.copies for run in runs):.2f} "
            f"| {median(run.cpu for run in runs):.0%} "
            f"| {median(run.busy for run in runs):.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
