"""Boot loaders that count boots, and come back from a kernel that never starts us.

An update is `armed` before it is booted: from then on the boot loader counts, and after
too many boots takes the deployment before. `disarm` ends that, once the update was
confirmed or gone back from. Where nothing counts, only a person can help.
"""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass
from typing import Protocol

from p2p.deploy.script import run_script
from p2p.errors import DeployError
from p2p.ostree.disk import writing

_TOOL_SECONDS = 60.0
_GRUB_TRIES = 3
# GRUB writes to the blocks of this file itself, so it is never replaced, nor resized.
_GRUBENV_BYTES = 1024
_GRUBENV_HEADER = b"# GRUB Environment Block\n"
_GRUB_PLACES = ("boot/grub2", "boot/grub", "boot/efi/EFI/*")


class BootCounter(Protocol):
    """A boot loader that counts."""

    @property
    def name(self) -> str:
        """Return what it is, for people."""
        ...

    def is_armed(self) -> bool:
        """Tell whether it counts now; errors as `arm`."""
        ...

    def arm(self) -> None:
        """Have it count from the next boot on; DeployError if it cannot be told."""
        ...

    def disarm(self) -> None:
        """Have it count no more; errors as `arm`."""
        ...


def find_boot_counter(sysroot: str) -> BootCounter | None:
    """Return what counts boots of a system; None if nothing is set up to."""
    for place in _GRUB_PLACES:
        for path in sorted(glob.glob(os.path.join(sysroot, place, "grubenv"))):
            if _mentions(os.path.join(os.path.dirname(path), "grub.cfg")):
                return Grub(path)
    if shutil.which("fw_setenv") and shutil.which("fw_printenv"):
        boot = UBoot()
        if boot.limit() > 0:
            return boot
    return None


def _mentions(configuration: str) -> bool:
    """Tell whether GRUB was told what to do with `boot_counter`."""
    try:
        with open(configuration, "rb") as file:
            return b"boot_counter" in file.read()
    except OSError:
        return False


# -- GRUB ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grub:
    """`boot_counter` and `boot_success` of GRUB's environment, as greenboot sets."""

    path: str
    name: str = "GRUB"

    def is_armed(self) -> bool:
        """See `BootCounter`."""
        return "boot_counter" in self._read()

    def arm(self) -> None:
        """See `BootCounter`."""
        values = {"boot_counter": str(_GRUB_TRIES), "boot_success": "0"}
        self._write(self._read() | values)

    def disarm(self) -> None:
        """See `BootCounter`."""
        values = self._read()
        values.pop("boot_counter", None)
        self._write(values | {"boot_success": "1"})

    def _read(self) -> dict[str, str]:
        with writing(self.path), open(self.path, "rb") as file:
            return parse_grubenv(file.read(_GRUBENV_BYTES + 1), where=self.path)

    def _write(self, values: dict[str, str]) -> None:
        data = format_grubenv(values, where=self.path)
        with writing(self.path), open(self.path, "r+b") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def parse_grubenv(data: bytes, *, where: str) -> dict[str, str]:
    """Return the variables of an environment block; DeployError if it is none."""
    if len(data) != _GRUBENV_BYTES or not data.startswith(_GRUBENV_HEADER):
        raise DeployError(
            f"{where}: not an environment block of GRUB's",
            hint="Make one: `grub-editenv FILE create`.",
        )
    values = {}
    for line in data.decode(errors="surrogateescape").split("\n"):
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[name] = value
    return values


def format_grubenv(values: dict[str, str], *, where: str) -> bytes:
    """Return the block with these variables; DeployError if they do not fit."""
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    data = _GRUBENV_HEADER + lines.encode(errors="surrogateescape")
    if len(data) > _GRUBENV_BYTES:
        raise DeployError(f"{where}: there is no room for another variable")
    return data.ljust(_GRUBENV_BYTES, b"#")


# -- U-Boot ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UBoot:
    """`bootcount`, `upgrade_available` and `rollback` of U-Boot, as aktualizr sets."""

    name: str = "U-Boot"

    def limit(self) -> int:
        """Return after how many boots it goes back; 0: never, or it cannot be read."""
        ending = run_script(
            ["fw_printenv", "-n", "bootlimit"], timeout_seconds=_TOOL_SECONDS
        )
        said = ending.output.strip()
        return int(said[:9]) if not ending.error and said.isdigit() else 0

    def is_armed(self) -> bool:
        """See `BootCounter`."""
        ending = run_script(
            ["fw_printenv", "-n", "upgrade_available"], timeout_seconds=_TOOL_SECONDS
        )
        return not ending.error and ending.output.strip() == "1"

    def arm(self) -> None:
        """See `BootCounter`: what makes it count is set last."""
        for name, value in (
            ("rollback", 0),
            ("bootcount", 0),
            ("upgrade_available", 1),
        ):
            _set(name, value)

    def disarm(self) -> None:
        """See `BootCounter`: what makes it count is unset first."""
        for name, value in (
            ("upgrade_available", 0),
            ("bootcount", 0),
            ("rollback", 0),
        ):
            _set(name, value)


def _set(name: str, value: int) -> None:
    command = ["fw_setenv", name, str(value)]
    ending = run_script(command, timeout_seconds=_TOOL_SECONDS)
    if ending.error:
        raise DeployError(
            f"`{' '.join(command)}` {ending}", hint="See /etc/fw_env.config."
        )
