"""Three devices, one origin: a signed commit of this machine's own files spreads.

`make demo` runs it; `make demo KEEP=1` leaves everything in place and says where. It
reads /usr, writes below one temporary directory and ends by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

P2P = [sys.executable, "-m", "p2p"]
REF = "os/demo"
# Enough of an operating system to be real, and little enough to take a minute.
SOURCES = ("bin", "sbin", "lib/python3", "share/doc", "lib/x86_64-linux-gnu")
MAX_BYTES = 250 << 20


def say(text: str) -> None:
    """Print a step."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(*arguments: str | Path) -> str:
    """Run a p2p command, its progress on the screen; return what it printed."""
    command = [*P2P, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout.strip()


@contextmanager
def background(*arguments: str | Path) -> Iterator[str]:
    """Run a p2p command beside the block; yield the first line it prints."""
    with subprocess.Popen(
        [*P2P, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("no pipe")
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def copy_system(tree: Path) -> tuple[int, int]:
    """Copy regular files and links of /usr; return how many, and their bytes."""
    count = size = 0
    for source in SOURCES:
        for directory, _, names in os.walk(f"/usr/{source}"):
            target = tree / "usr" / Path(directory).relative_to("/usr")
            target.mkdir(parents=True, exist_ok=True)
            for name in sorted(names):
                path = Path(directory, name)
                if size > MAX_BYTES or not os.access(path, os.R_OK):
                    continue
                if path.is_symlink() or path.is_file():
                    shutil.copy2(path, target / name, follow_symlinks=False)
                    count += 1
                    size += path.lstat().st_size
    return count, size


@dataclass(slots=True)
class Device:
    """One repository, and what its pulls brought."""

    name: str
    repo: Path

    def pull(self, *peers: str) -> dict[str, int]:
        """Pull; return bytes by source."""
        started = time.monotonic()
        options = [f"--peer={peer}" for peer in peers]
        command = ["pull", f"--repo={self.repo}", "hub", REF, "--json", *options]
        result = json.loads(run(*command))
        return {
            "origin": result["origin"]["bytes"],
            "peers": result["peers"]["bytes"],
            "objects": result["origin"]["objects"] + result["peers"]["objects"],
            "milliseconds": int((time.monotonic() - started) * 1000),
        }


def table(rows: Sequence[tuple[str, dict[str, int]]]) -> None:
    """Print bytes by source."""
    print(f"{'':10} {'objects':>8} {'origin MiB':>11} {'neighbours MiB':>15} {'s':>6}")
    for name, row in rows:
        print(
            f"{name:10} {row['objects']:8} {row['origin'] / 2**20:11.1f} "
            f"{row['peers'] / 2**20:15.1f} {row['milliseconds'] / 1000:6.1f}"
        )


def site(work: Path, stack: ExitStack) -> None:
    """Play the whole story below a directory."""
    say("1. A build: files of this machine's own /usr, committed and signed")
    tree = work / "tree"
    count, size = copy_system(tree)
    print(f"{count} files, {size / 2**20:.0f} MiB")
    run("keygen", work / "keys")
    run("init", f"--repo={work / 'build'}", "--mode=archive")
    commit = [
        *("commit", f"--repo={work / 'build'}", f"--branch={REF}"),
        f"--sign-key={work / 'keys' / 'signing.key'}",
    ]
    print(f"commit {run(*commit, '--subject=first', tree)}")

    say("2. An origin with TreeHub's interface, and the build pushed to it")
    hub = work / "hub"
    started = stack.enter_context(
        background("treehub", f"--store={hub}", "--listen=127.0.0.1:0", "--json")
    )
    url = json.loads(started)["urls"][0]
    origin = f"--origin={url}/api/v3"
    push = ["push", f"--repo={work / 'build'}", f"--ref={REF}", origin]
    run(*push)

    say("3. Three devices: the first asks the origin, the others their neighbours")
    devices = [Device(f"device {n}", work / f"device-{n}") for n in (1, 2, 3)]
    peers: list[str] = []
    rows = []
    for device in devices:
        run("init", f"--repo={device.repo}", "--mode=bare-user")
        key = f"ed25519=file:{work / 'keys' / 'signing.pub'}"
        remote = ["remote", "add", f"--repo={device.repo}", "hub", url]
        run(*remote, f"--sign-verify={key}")
        rows.append((device.name, device.pull(*peers)))
        line = stack.enter_context(
            background("serve", f"--repo={device.repo}", "--listen=127.0.0.1:0")
        )
        peers.append(f"127.0.0.1:{line.rpartition(' ')[2]}")
    table(rows)

    say("4. A second, small build: only what changed travels")
    (tree / "usr" / "release").write_text("second\n")
    run(*commit, "--subject=second", tree)
    run(*push)
    table([(device.name, device.pull()) for device in devices])

    say("5. Every object of the third device is recomputed, and its tree written out")
    print(run("fsck", f"--repo={devices[2].repo}"))
    run("checkout", f"--repo={devices[2].repo}", "-U", f"hub:{REF}", work / "deployed")
    print(f"deployed: {(work / 'deployed' / 'usr' / 'release').read_text().strip()}")


def main() -> None:
    """Run the demo and clean up."""
    with ExitStack() as stack:
        if os.environ.get("KEEP"):
            work = Path(tempfile.mkdtemp(prefix="ostree-p2p-demo-"))
        else:
            work = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="ostree-p2p-demo-")
                )
            )
        with ExitStack() as running:
            site(work, running)
            if os.environ.get("KEEP"):
                say(f"Kept in {work}; the servers run until you press Enter")
                input()


if __name__ == "__main__":
    main()
