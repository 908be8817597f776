"""A full and an incremental pull from an origin: `p2p pull` against `ostree pull`.

Run as root: `python -m bench.pull_origin`. The tree is a real Debian one; the origin
is nginx, and our TreeHub server. Repositories are bare-user, on a fresh ext4 (loop
device) or tmpfs for each run; the write-back of what was written is counted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.contest import Rival, contest
from tests.debian import debian_tree
from tests.oracle import Ostree
from tests.servers import run_nginx
from tests.trees import change_files

CHANGED_FILES = 140
_P2P = [sys.executable, "-m", "p2p"]


def make_origin(work: Path, *, sign_key: Path | None = None) -> tuple[Path, str, str]:
    """Make an archive repository with two commits, the second 140 files later."""
    tree = work / "tree"
    shutil.copytree(debian_tree(), tree, symlinks=True)
    origin = f"--repo={work / 'origin'}"
    _run([*_P2P, "init", origin, "--mode=archive"])
    sign = [] if sign_key is None else [f"--sign-key={sign_key}"]
    commit = [*_P2P, "commit", origin, "--branch=os", *sign, str(tree)]
    first = _run(commit)
    change_files(tree, seed=1, files=CHANGED_FILES)
    second = _run(commit)
    shutil.rmtree(tree)
    return work / "origin", first, second


def stock(
    url: str, first: str, second: str | None, *, name: str = "ostree pull"
) -> Rival:
    """`ostree pull`, without signatures as the origin has none."""

    def prepare(directory: Path) -> Sequence[str]:
        repo = Ostree.init(directory / "repo", "bare-user")
        repo.remote_add("up", url, "--no-gpg-verify")
        if second is None:
            return ["ostree", f"--repo={repo.repo}", "pull", "up", f"os@{first}"]
        repo.pull("up", f"os@{first}")
        return ["ostree", f"--repo={repo.repo}", "pull", "up", f"os@{second}"]

    return Rival(name, prepare)


def ours(name: str, url: str, first: str, second: str | None) -> Rival:
    """`p2p pull` of the same."""

    def prepare(directory: Path) -> Sequence[str]:
        repo = f"--repo={directory / 'repo'}"
        _run([*_P2P, "init", repo, "--mode=bare-user"])
        _run([*_P2P, "remote", "add", repo, "up", url, "--no-sign-verify"])
        pull = [*_P2P, "pull", repo, "up", "--no-mdns"]
        if second is None:
            return [*pull, f"os@{first}"]
        _run([*pull, f"os@{first}"])
        return [*pull, f"os@{second}"]

    return Rival(name, prepare)


def _run(command: Sequence[str]) -> str:
    """Run a command; return what it printed."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextmanager
def run_treehub(store: Path) -> Iterator[str]:
    """Serve an archive repository with our own server; yield its URL."""
    with subprocess.Popen(
        [*_P2P, "treehub", f"--store={store}", "--listen=127.0.0.1:0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            if server.stdout is None:
                raise RuntimeError("no pipe")
            yield json.loads(server.stdout.readline())["urls"][0]
        finally:
            server.terminate()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filesystem", choices=["tmpfs", "ext4"], action="append")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin, first, second = make_origin(work)
        nginx = stack.enter_context(run_nginx(origin, work=work / "nginx"))
        treehub = stack.enter_context(run_treehub(origin))
        for filesystem in arguments.filesystem or ["tmpfs", "ext4"]:
            for title, last in (("Full pull", None), ("140 files changed", second)):
                rivals = [
                    stock(nginx.url, first, last),
                    ours("p2p pull", nginx.url, first, last),
                    stock(treehub, first, last, name="ostree pull, p2p treehub"),
                    ours("p2p pull, p2p treehub", treehub, first, last),
                ]
                contest(
                    f"{title}, from nginx where nothing is said",
                    rivals,
                    filesystem=filesystem,
                    rounds=arguments.rounds,
                    work=work,
                )


if __name__ == "__main__":
    main()
