"""Whether now is the time for a reboot, and what is run before one and after it.

An administrator's programs in `inhibit.d` put a reboot off, by a status that is not 0;
those of `drain.d` are run before it and `ready.d` after an update was confirmed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from p2p.deploy.health import ETC, LIB, find_hooks
from p2p.deploy.script import run_script
from p2p.deploy.settings import Reboot, Settings, window_minutes
from p2p.errors import DeployError

# 2024: a clock that says less was not set since the battery was empty.
_PLAUSIBLE_TIME = 1_704_067_200
# Five minutes' load for each processor, below which a system has little to do.
_IDLE_LOAD = 0.5
_HOOK_SECONDS = 300.0
_LIST_SECONDS = 10.0
_LIST_INHIBITORS = (
    "busctl",
    "--json=short",
    "call",
    "org.freedesktop.login1",
    "/org/freedesktop/login1",
    "org.freedesktop.login1.Manager",
    "ListInhibitors",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When this system reboots, and how.

    Attributes:
        settings: what was configured.
        directories: what holds `inhibit.d`, `drain.d` and `ready.d`.
        command: what reboots, unless the settings say another.

    """

    settings: Settings
    directories: tuple[str, ...] = (ETC, LIB)
    command: tuple[str, ...] = ("systemctl", "reboot")

    def hold(self) -> str:
        """Return why this is no time to reboot, for people; empty if it is."""
        match self.settings.reboot:
            case Reboot.NEVER:
                return "reboots are left to people"
            case Reboot.IDLE:
                load = os.getloadavg()[1] / (os.cpu_count() or 1)
                if load >= _IDLE_LOAD:
                    return f"the system is not idle: its load is {load:.1f} a processor"
            case Reboot.WINDOW:
                if said := outside_window(self.settings.window or "", time.time()):
                    return said
        return next(self._inhibitors(), "")

    def _inhibitors(self) -> Iterator[str]:
        yield from inhibitors()
        for path in self._hooks("inhibit.d"):
            ending = run_script([path], timeout_seconds=_HOOK_SECONDS)
            if ending.error:
                yield f"{path} {ending}"

    def _hooks(self, name: str) -> list[str]:
        return find_hooks(*(os.path.join(each, name) for each in self.directories))

    def reboot(self) -> None:
        """Drain the system and ask for a reboot.

        Raises:
            DeployError: a program of `drain.d`, or the reboot itself, says no.

        """
        for path in self._hooks("drain.d"):
            ending = run_script([path], timeout_seconds=_HOOK_SECONDS)
            if ending.error:
                raise DeployError(f"no reboot: {path} {ending}")
        command = self.command
        if self.settings.reboot is Reboot.COMMAND:
            command = self.settings.command
        ending = run_script(command, timeout_seconds=_HOOK_SECONDS)
        if ending.error:
            raise DeployError(f"no reboot: `{' '.join(command)}` {ending}")

    def ready(self) -> tuple[str, ...]:
        """Run what waits for a confirmed update; return what went wrong with it."""
        endings = (
            (path, run_script([path], timeout_seconds=_HOOK_SECONDS))
            for path in self._hooks("ready.d")
        )
        return tuple(f"{path} {ending}" for path, ending in endings if ending.error)


def outside_window(window: str, now: float) -> str:
    """Return why a time is not in a window of the day; empty if it is."""
    hours = window_minutes(window)
    if hours is None:
        return f"the window {window!r} is none"
    if now < _PLAUSIBLE_TIME:
        return "the clock is not set, so the window cannot be told"
    local = time.localtime(now)
    minute = local.tm_hour * 60 + local.tm_min
    begin, end = hours
    is_in = begin <= minute < end if begin < end else not end <= minute < begin
    return "" if is_in else f"the window is {window}"


def inhibitors() -> Iterator[str]:
    """Yield who asks systemd not to reboot now, for people; nobody without systemd."""
    try:
        done = subprocess.run(
            _LIST_INHIBITORS,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_LIST_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.returncode == 0:
        yield from parse_inhibitors(done.stdout)


def parse_inhibitors(data: bytes) -> Iterator[str]:
    """Yield who blocks, of what `busctl` printed; what is not known blocks too."""
    try:
        (rows,) = json.loads(data)["data"]
        found = [
            (who, why)
            for what, who, why, mode, _, _ in rows
            if mode.startswith("block") and "shutdown" in what.split(":")
        ]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        yield f"systemd's list of inhibitors is not known: {error!r}"
        return
    for who, why in found:
        yield f"{who} asks for no shutdown: {why}"
