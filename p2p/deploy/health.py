"""Whether a system that was just updated does what it is for.

Healthy is it if every program in `health.d` ends with status 0, the units that were
named are active, and the agent answers: it is what the next update comes by.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from p2p.deploy.script import run_script

ETC = "/etc/ostree-p2p"
LIB = "/usr/lib/ostree-p2p"
CHECKS = "health.d"
_LOOK_SECONDS = 0.5
_UNIT_SECONDS = 10.0
_MAX_ANSWER_BYTES = 64


def find_hooks(*directories: str) -> list[str]:
    """Return the programs of some directories, by their names.

    A name in an earlier directory counts instead of the same in a later one, and
    there a link to /dev/null takes it away. What editors and packagers leave is none.
    """
    found: dict[str, str] = {}
    for directory in directories:
        for name in os.listdir(directory) if os.path.isdir(directory) else []:
            if not name.startswith(".") and not name.endswith(("~", ".dpkg-old")):
                found.setdefault(name, os.path.join(directory, name))
    return [
        found[name]
        for name in sorted(found)
        if os.path.realpath(found[name]) != os.devnull
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is checked, and how long that may take.

    Attributes:
        directories: where the programs are.
        units: systemd units that must be active.
        socket: of the agent that must answer; None: none need.
        timeout_seconds: for all together.
        each_seconds: for one program.

    """

    directories: tuple[str, ...] = (f"{ETC}/{CHECKS}", f"{LIB}/{CHECKS}")
    units: tuple[str, ...] = ()
    socket: str | None = None
    timeout_seconds: float = 300.0
    each_seconds: float = 60.0

    def check(self, commit: str) -> str:
        """Return what is wrong, for people; empty if the system is healthy.

        All is tried, until the time is over, so that one look tells all.
        """
        deadline = time.monotonic() + self.timeout_seconds
        environment = {"OSTREE_P2P_COMMIT": commit}
        wrong = [
            *self._programs(deadline, environment),
            *(
                f"unit {unit} is {said}"
                for unit in self.units
                if (said := _until(deadline, partial(_unit, unit)))
            ),
        ]
        if self.socket is not None:
            said = _until(deadline, partial(_agent, self.socket))
            wrong += [f"the agent at {self.socket} {said}"] if said else []
        return "; ".join(wrong)

    def _programs(self, deadline: float, environment: dict[str, str]) -> Iterator[str]:
        for path in find_hooks(*self.directories):
            left = deadline - time.monotonic()
            if left <= 0:
                yield f"{path} was not run: all checks had {self.timeout_seconds:g} s"
                continue
            seconds = min(left, self.each_seconds)
            ending = run_script(
                [path], timeout_seconds=seconds, environment=environment
            )
            if ending.error:
                yield f"{path} {ending}"


def _until(deadline: float, wrong: Callable[[], str]) -> str:
    """Return what is wrong at last: it may come right until the time is over."""
    while said := wrong():
        if time.monotonic() + _LOOK_SECONDS > deadline:
            return said
        time.sleep(_LOOK_SECONDS)
    return ""


def _unit(unit: str) -> str:
    """Return in what state a unit is; empty if it is active."""
    try:
        done = subprocess.run(
            ["systemctl", "is-active", "--", unit],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_UNIT_SECONDS,
        )
    except OSError as error:
        return f"not known: systemctl cannot be run: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "not known: systemctl does not answer"
    said = (done.stdout or done.stderr).strip()
    return "" if done.returncode == 0 else said or "not known"


def _agent(path: str) -> str:
    """Return why an agent does not answer; empty if it does."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_UNIT_SECONDS)
            connection.connect(path)
            request = b"GET /peers HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
            connection.sendall(request)
            answer = connection.recv(_MAX_ANSWER_BYTES)
    except OSError as error:
        return f"does not answer: {error.strerror or error}"
    status = answer.partition(b"\r\n")[0].split(b" ")
    return "" if status[1:2] == [b"200"] else "answers that it does not work"
