"""Three devices update themselves from one origin behind a thin link.

`make demo` runs it; `make demo KEEP=1` keeps it up until Enter is pressed. It reads
/usr, writes below one temporary directory, listens on loopback only, and leaves nothing
running. It drives the commands and no more: every step can be typed by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

P2P = [sys.executable, "-m", "p2p"]
REF = "os/demo"
# Enough of an operating system to be real, and little enough to take a minute.
SOURCES = ("sbin", "lib/python3", "share/perl", "bin", "lib/x86_64-linux-gnu")
MAX_BYTES = 250 << 20
WAN_RATE = "100mbit"
MIB = 1 << 20
GIVE_UP_SECONDS = 300


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
def background(log: Path, *arguments: str | Path) -> Iterator[str]:
    """Run a p2p command beside the block; yield the first line it prints."""
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*P2P, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            if process.stdout is None:
                raise RuntimeError("no pipe")
            line = process.stdout.readline().strip()
            if not line:
                process.wait()
                sys.exit(f"p2p {arguments[0]} ended:\n{log.read_text()}")
            yield line
        finally:
            process.send_signal(signal.SIGTERM)


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
    """One agent with its own repository, state and deployments."""

    name: str
    path: Path

    @property
    def config(self) -> Path:
        """The configuration by which commands find this agent."""
        return self.path / "agent.toml"

    def configure(self, url: str, key: Path) -> None:
        """Write everything that this device needs to be told."""
        self.path.mkdir()
        self.config.write_text(
            f"""\
repo = "repo"
state = "state"
socket = "agent.sock"

[neighbours]
interfaces = ["lo"]      # a site on one machine
listen = "127.0.0.1:0"

[share]
enabled = true

[origin]
poll-seconds = 3

[deploy]
tree = "run"

[[follow]]
ref = "hub:{REF}"
url = "{url}"
key = "{key}"
deploy = true
"""
        )

    def status(self) -> dict[str, Any]:
        """Ask the agent."""
        answer: dict[str, Any] = json.loads(
            run("status", f"--config={self.config}", "--json")
        )
        return answer

    def deployed(self) -> str | None:
        """Return the commit that runs."""
        target = self.path / "run" / "current"
        return os.readlink(target).split("/")[-1][:64] if target.is_symlink() else None


def wait_until(what: str, done: Callable[[], bool]) -> float:
    """Wait until something is so; return how many seconds that took."""
    started = time.monotonic()
    while not done():
        seconds = time.monotonic() - started
        if seconds > GIVE_UP_SECONDS:
            sys.exit(f"{what}: not after {seconds:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - started


def show_updates(devices: list[Device], commit: str) -> int:
    """Print bytes by source; return how many came from the origin in all."""
    print(f"{'':10} {'from origin':>12} {'from neighbours':>16} {'seconds':>8}")
    whole = 0
    for device in devices:
        updates = device.status()["updates"]
        update = next(each for each in updates if each["commit"] == commit)
        whole += update["origin_bytes"]
        print(
            f"{device.name:10} {update['origin_bytes'] / MIB:8.2f} MiB "
            f"{update['peer_bytes'] / MIB:12.2f} MiB {update['seconds']:8.1f}"
        )
    print(f"{'together':10} {whole / MIB:8.2f} MiB")
    return whole


def publish(work: Path, tree: Path, subject: str, url: str) -> tuple[str, int]:
    """Commit, sign and push a build; return the commit and the bytes of one copy."""
    commit = run(
        *("commit", f"--repo={work / 'build'}", f"--branch={REF}"),
        *(f"--sign-key={work / 'keys' / 'signing.key'}", f"--subject={subject}", tree),
    )
    push = ["push", f"--repo={work / 'build'}", f"--ref={REF}"]
    pushed = json.loads(run(*push, f"--origin={url}/api/v3", "--json"))
    return commit, pushed["sent_bytes"]


def site(work: Path, stack: ExitStack) -> None:
    """Play the whole story below a directory."""
    say("1. A build: files of this machine's own /usr")
    tree = work / "tree"
    count, size = copy_system(tree)
    print(f"{count} files, {size / MIB:.0f} MiB")
    run("keygen", work / "keys")
    run("init", f"--repo={work / 'build'}", "--mode=archive")

    say(f"2. An origin with TreeHub's interface, behind {WAN_RATE} for all; push to it")
    hub = ["treehub", f"--store={work / 'hub'}", "--listen=127.0.0.1:0"]
    log = work / "treehub.log"
    started = stack.enter_context(background(log, *hub, f"--rate={WAN_RATE}", "--json"))
    url = json.loads(started)["urls"][0]
    first, one_copy = publish(work, tree, "first", url)

    say("3. Three agents find each other by mDNS, pull, check and deploy")
    key = work / "keys" / "signing.pub"
    devices = [Device(f"device {n}", work / f"device-{n}") for n in (1, 2, 3)]
    for device in devices:
        device.configure(url, key)
        log = device.path / "agent.log"
        stack.enter_context(background(log, "agent", f"--config={device.config}"))
    wait_until("deployed", lambda: all(d.deployed() == first for d in devices))
    from_origin = show_updates(devices, first)
    print(f"           {from_origin / one_copy:.2f} of one copy crossed the thin link")

    say("4. A second, small build is pushed; nobody tells the devices")
    (tree / "usr" / "release").write_text("second\n")
    second, _ = publish(work, tree, "second", url)
    seconds = wait_until(
        "second build", lambda: all(d.deployed() == second for d in devices)
    )
    print(f"deployed everywhere {seconds:.1f} s after the push")
    show_updates(devices, second)

    say("5. Every object of the third device is recomputed; what runs, and what before")
    print(run("fsck", f"--repo={devices[2].path / 'repo'}"))
    release = devices[2].path / "run" / "current" / "usr" / "release"
    print(f"{release.relative_to(work)}: {release.read_text().strip()}")
    print(run("status", f"--config={devices[2].config}"))


def main() -> None:
    """Run the demo and clean up."""
    started = time.monotonic()
    keep = os.environ.get("KEEP")
    with ExitStack() as stack:
        if keep:
            work = Path(tempfile.mkdtemp(prefix="ostree-p2p-demo-"))
        else:
            work = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="ostree-p2p-demo-")
                )
            )
        with ExitStack() as running:
            site(work, running)
            print(f"\n{time.monotonic() - started:.0f} s in all")
            if keep:
                say(f"Kept in {work}; it runs until you press Enter")
                input()


if __name__ == "__main__":
    main()
