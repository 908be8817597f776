"""A booted system with the service on it: this machine's own /usr, and nothing else.

`systemd-nspawn` boots it with an empty /etc and /var in memory, in namespaces of its
own: nothing of this machine changes, and all of it ends with the block. The network is
a loopback. Needs root.
"""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.require import require

ROOT = Path(__file__).parents[2]
ETC = "etc/ostree-p2p"
_BOOT_SECONDS = 60
_SYSTEMD = "/usr/lib/systemd/systemd"
_TARGET = """\
[Unit]
Requires=sysinit.target
After=sysinit.target ostree-p2p.service
Wants=ostree-p2p.service
"""
_PROGRAM = """\
#!/bin/sh
export PYTHONPATH=/opt/source:/opt/site LD_LIBRARY_PATH=/opt/python/lib
exec {python} -m p2p "$@"
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """The booted system.

    Attributes:
        leader: its process 1, as a process of this machine.
        shared: a directory that it has as `/shared`.
        python: the interpreter there that the service has.

    """

    leader: int
    shared: Path
    python: str

    def path(self, path: str) -> Path:
        """A path of it, as one of this machine."""
        return Path(f"/proc/{self.leader}/root", path.lstrip("/"))

    def command(self, *command: str) -> list[str]:
        """What runs a command there."""
        enter = ["nsenter", f"--target={self.leader}"]
        return [*enter, "--mount", "--pid", "--net", "--uts", "--ipc", "--", *command]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command there; what it printed."""
        done = subprocess.run(
            self.command(*command),
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": "/root"},
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout + done.stderr

    def journal(self) -> str:
        """What the services said, for a person."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-n", "60")


def python_of(tree: Path) -> tuple[str, list[str]]:
    """This interpreter there, and what to mount for it."""
    paths = sysconfig.get_paths()
    mounts = [f"{ROOT / 'p2p'}:/opt/source/p2p", f"{paths['purelib']}:/opt/site"]
    home = Path(sys.base_prefix)
    program = Path(os.path.realpath(sys.executable))
    if not home.is_relative_to("/usr"):
        mounts.append(f"{home}:/opt/python")
        program = Path("/opt/python", program.relative_to(home))
    programs = tree / "bin"
    programs.mkdir()
    (programs / "p2p").write_text(_PROGRAM.format(python=program))
    (programs / "p2p").chmod(0o755)
    return str(program), [*mounts, f"{programs}:/usr/local/bin"]


def install(tree: Path) -> list[str]:
    """Install the service below a directory; what to mount of it."""
    made = tree / "installed"
    subprocess.run(
        ["make", "-s", "install-service", f"DESTDIR={made}"], cwd=ROOT, check=True
    )
    lib = made / "usr/lib"
    (lib / "systemd/system/test.target").write_text(_TARGET)
    return [
        f"{lib}/systemd/system:/etc/systemd/system",
        f"{lib}/sysusers.d:/etc/sysusers.d",
        f"{lib}/tmpfiles.d:/etc/tmpfiles.d",  # noqa: S108  no temporary file
        f"{lib}/ostree-p2p/agent.d:/{ETC}/agent.d",
    ]


@contextmanager
def booted(tree: Path) -> Iterator[Machine]:
    """Boot the system, with what is in `tree / "work"` as its `/shared`."""
    require("root", "systemd-nspawn", "nsenter")
    python, mounts = python_of(tree)
    mounts += install(tree)
    notices = tree / "notify"
    command = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--private-network",
        "--console=pipe",
        "--notify-ready=yes",
        "--directory=/",
        "--volatile=yes",
        f"--machine=p2p-{os.getpid()}",
        *(f"--bind-ro={mount}" for mount in mounts),
        f"--bind={tree / 'work'}:/shared",
        _SYSTEMD,
        "--unit=test.target",
    ]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        (tree / "console").open("w+") as console,
    ):
        listener.bind(str(notices))
        listener.settimeout(_BOOT_SECONDS)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env=os.environ | {"NOTIFY_SOCKET": str(notices)},
        ) as process:
            leader = None
            try:
                leader = _wait(listener)
                yield Machine(leader, tree / "work", python)
            finally:
                if leader is not None:
                    # All its processes end with it.
                    os.kill(leader, signal.SIGKILL)
                else:
                    process.kill()


def _wait(listener: socket.socket) -> int:
    """Wait until the system has booted; its process 1."""
    leader = None
    while True:
        for line in listener.recv(4096).decode().splitlines():
            name, _, value = line.partition("=")
            if name == "X_NSPAWN_LEADER_PID":
                leader = int(value)
            if name == "READY" and leader is not None:
                return leader
