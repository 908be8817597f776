"""Agent and writer killed (SIGKILL) at random points of an update of a real sysroot.

The sysroot is on a loop file system, and the real `ostree admin` deploys into it.
`P2P_KILLS` says how many points; `make kills` has a hundred.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2p.agent.config import AgentConfig
from p2p.cli.local_api import ask
from p2p.deploy.booting import read_bootable
from p2p.deploy.journal_file import read_journal
from p2p.deploy.machine import Step
from p2p.deploy.target import SysrootTarget, journal_of
from p2p.deploy.thaw import thaw
from p2p.errors import AgentError, Error
from p2p.ostree.objects import Checksum
from p2p.ostree.refs import remote_ref
from p2p.ostree.repo import Repo
from tests.compat.sysroots import make_sysroot
from tests.mounts import mount_loop_ext4
from tests.oracle import Ostree
from tests.require import require
from tests.trees import MIB

pytestmark = pytest.mark.root

REFSPEC = "o:main"
MAIN = remote_ref("o", "main")
KILLS = int(os.environ.get("P2P_KILLS", "8"))
# An update takes about a quarter of a second; a point behind its end is one, too.
LONGEST_SECONDS = 0.3
PATIENCE_SECONDS = 60.0


class Device:
    """A sysroot with three commits, and an agent whose writer deploys into it."""

    def __init__(self, root: Path, work: Path, commits: tuple[Checksum, ...]) -> None:
        self.root = root
        self.commits = commits
        self.repo = Repo.open(str(root / "ostree/repo"))
        self.config = AgentConfig(
            repo=self.repo.path,
            state=str(work / "state"),
            socket=str(work / "agent.sock"),
        )
        self.file = work / "agent.toml"
        self.file.write_text(
            f'repo = "{self.config.repo}"\nstate = "{self.config.state}"\n'
            f'socket = "{self.config.socket}"\nwriter = "process"\n'
            f'[neighbours]\nmdns = false\nlisten = "127.0.0.1:0"\n'
            f'[deploy]\nsysroot = "{root}"\nos = "tree"\n'
        )
        self.log = work / "agent.log"
        self.journal = journal_of(self.repo, SysrootTarget(str(root), "tree"))

    @contextlib.contextmanager
    def agent(self) -> Iterator["subprocess.Popen[bytes]"]:
        """An agent that answers; ended by SIGKILL, with its writer."""
        command = [sys.executable, "-m", "p2p", "agent", f"--config={self.file}"]
        with (
            self.log.open("ab") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                self.until(lambda: self.answers(process))
                yield process
            finally:
                kill(process.pid)

    def answers(self, process: "subprocess.Popen[bytes]") -> bool:
        assert process.poll() is None, self.log.read_text()
        try:
            ask(self.config, "/peers", None)
        except AgentError:
            return False
        return True

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for what another process does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def step(self) -> Step | None:
        job = read_journal(self.journal).job
        return None if job is None else job.step

    def default(self) -> Checksum:
        """What the next boot takes; its boot entry leads to a whole deployment."""
        first = read_bootable(str(self.root))[0]
        version = Path(first.path, "etc/hostname").read_text()
        assert version == "tree\n"
        return first.commit


def kill(agent: int, *, spare_ostree: bool = False) -> None:
    """Kill an agent and its writer; the `ostree` of that may live on."""
    victims = [agent]
    for pid in victims:
        if spare_ostree and pid != agent:
            break
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            victims += map(int, children.split())
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    require("ostree", "loop", "mkfs.ext4")
    with mount_loop_ext4(tmp_path, 256 * MIB) as root:
        commits = make_sysroot(root, tmp_path)
        try:
            yield Device(root, tmp_path, commits)
        finally:
            thaw(str(root))


def deploy(device: Device) -> None:
    """Ask for what the branch names; the agent may be killed meanwhile."""
    with contextlib.suppress(Error):
        ask(device.config, "/deploy", {"refspec": REFSPEC})


@pytest.mark.timeout(1800)
def test_killed_at_random_points_an_update_goes_on_and_nothing_is_lost(
    device: Device,
) -> None:
    rng = random.Random(4)
    device.repo.refs.set(MAIN, device.commits[0])
    with device.agent():
        deploy(device)
    old = device.default()
    assert old == device.commits[0]
    hit: Counter[str] = Counter()
    for number in range(KILLS):
        new = device.commits[(number + 1) % 3]
        device.repo.refs.set(MAIN, new)
        with device.agent() as agent:
            asking = threading.Thread(target=deploy, args=(device,))
            asking.start()
            time.sleep(rng.uniform(0, LONGEST_SECONDS))
            kill(agent.pid, spare_ostree=rng.random() < 0.5)
            asking.join()
        assert device.default() in (old, new)
        job = read_journal(device.journal).job
        is_ours = job is not None and job.commit == new
        hit[str(job.step) if job is not None and is_ours else "nothing yet"] += 1
        with device.agent():
            if not is_ours:
                deploy(device)
            device.until(lambda: device.step() is Step.DEPLOYED)
        journal = read_journal(device.journal)
        assert journal.job is not None
        assert (journal.job.commit, journal.bad) == (new, ())
        assert device.default() == new
        old = new
    print(f"killed at: {dict(hit)}")  # noqa: T201 - for who asks how it went
    assert KILLS < 50 or hit["fetched"] > KILLS // 10
    Ostree(device.root / "ostree/repo").fsck()
