"""Runs `ostree admin` on a sysroot; when it fails, what it said is a DeployError."""

from __future__ import annotations

import functools
import os
import re
import subprocess

from p2p.errors import DeployError

OLDEST = (2022, 7)
"""The oldest release of ostree that this program is tested with."""
# A kernel and an initramfs on slow flash, behind another updater; not for ever.
_TIMEOUT_SECONDS = 1800.0
_KEPT_OF_STDERR = 2000
# What `ostree` says, in the C locale, and what helps.
_HINTS = (
    ("No space left on device", "Free some space: `ostree admin cleanup`, /boot too."),
    ("Read-only file system", "Run as root, on a sysroot that can be written."),
    ("Permission denied", "Run as root."),
    ("must be root", "Run as root."),
)
_VERSION = re.compile(r"Version:\s*'?(\d+)\.(\d+)")
_COMMAND = re.compile(r"^ +([a-z][a-z-]*)(?: |$)", re.MULTILINE)


class OstreeAdmin:
    """The program `ostree`, for one sysroot."""

    def __init__(self, sysroot: str, *, command: str = "ostree") -> None:
        """Run that program; whether it is there is seen at the first use."""
        self._sysroot = sysroot
        self._command = command

    def run(self, verb: str, *arguments: str) -> str:
        """Run `ostree admin VERB` and return its standard output.

        Raises:
            DeployError: ostree is missing, too old, or refused, with what it said.

        """
        self.check_version()
        result = self._execute("admin", verb, f"--sysroot={self._sysroot}", *arguments)
        if result.returncode:
            said = result.stderr.strip()[-_KEPT_OF_STDERR:]
            raise DeployError(
                f"ostree admin {verb} on {self._sysroot} failed: "
                f"{said or f'exit status {result.returncode}'}",
                hint=next((hint for text, hint in _HINTS if text in said), None),
            )
        return result.stdout

    def has(self, verb: str) -> bool:
        """Tell whether this ostree has a command `admin VERB`."""
        return verb in self._verbs

    @functools.cached_property
    def _verbs(self) -> frozenset[str]:
        return frozenset(_COMMAND.findall(self._execute("admin", "--help").stdout))

    def check_version(self) -> str:
        """Return the version of ostree; DeployError if it is too old or none."""
        if self._version < OLDEST:
            raise DeployError(
                f"ostree {_format(self._version)} is older than {_format(OLDEST)}, the "
                "oldest that can deploy here",
                hint="Install a newer ostree.",
            )
        return _format(self._version)

    @functools.cached_property
    def _version(self) -> tuple[int, int]:
        said = self._execute("--version").stdout
        found = _VERSION.search(said)
        if found is None:
            raise DeployError(
                f"`{self._command} --version` says no version: {said[:200]!r}",
                hint="Install the package ostree.",
            )
        return int(found[1]), int(found[2])

    def _execute(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self._command, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_TIMEOUT_SECONDS,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
        except OSError as error:
            raise DeployError(
                f"`{self._command}` cannot be run: {error.strerror}",
                hint="Install the package ostree, or deploy into a --tree.",
            ) from None
        except subprocess.TimeoutExpired:
            raise DeployError(
                f"`{self._command} {arguments[0]}` took longer than "
                f"{_TIMEOUT_SECONDS:g} seconds and was ended",
                hint="See who holds the sysroot's lock: another updater?",
            ) from None


def _format(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
