"""What a test needs of its machine, and what happens where it is missing."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

INSTALLED_TESTS = Path("/usr/libexec/installed-tests/libostree")

_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def find_program(name: str) -> str | None:
    """The path of a program, also from the directories only root has on PATH."""
    return shutil.which(name, path=_SYSTEM_PATH)


def _is_root() -> bool:
    return os.geteuid() == 0


def _has_loop_devices() -> bool:
    return _is_root() and Path("/dev/loop-control").exists()


def _has_namespaces() -> bool:
    """Whether network namespaces can be made: containers often may not."""
    ip = find_program("ip")
    if not _is_root() or ip is None:
        return False
    name = f"p2p-try-{os.getpid()}"
    made = subprocess.run([ip, "netns", "add", name], capture_output=True, check=False)
    subprocess.run([ip, "netns", "delete", name], capture_output=True, check=False)
    return made.returncode == 0


def _has_binding() -> bool:
    probe = ["/usr/bin/python3", "-c", "from gi.repository import GLib"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _has_descriptors() -> bool:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 2048


_ABILITIES: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (_is_root, "needs root"),
    "descriptors": (_has_descriptors, "needs 2048 open files to be allowed"),
    "gi": (_has_binding, "needs the package python3-gi"),
    "loop": (_has_loop_devices, "needs root and loop devices"),
    "netns": (_has_namespaces, "needs root and network namespaces"),
    "ostree-tests": (
        INSTALLED_TESTS.is_dir,
        "needs the package ostree-tests",
    ),
}


def _lack(what: str) -> str | None:
    if what in _ABILITIES:
        there, reason = _ABILITIES[what]
        return None if there() else reason
    return None if find_program(what) else f"needs the program {what}"


def require(*what: str) -> None:
    """Skip the test unless the machine has everything named; fail it under CI.

    A name is "root", "descriptors", "gi", "loop", "netns", "ostree-tests" or else a
    program.
    """
    lacks = [reason for reason in map(_lack, what) if reason]
    if not lacks:
        return
    if os.environ.get("CI") == "true":
        pytest.fail("; ".join(lacks) + " (nothing is skipped under CI)")
    pytest.skip("; ".join(lacks))
