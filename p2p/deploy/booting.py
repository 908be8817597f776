"""Which deployments a sysroot can boot, in what order, and which one runs.

Read from the files that libostree writes for every boot loader, so that it needs no
program and no right to write: BOOT/loader/entries/ostree-*.conf (Boot Loader
Specification), whose `ostree=` leads through links to a deployment. A deployment that
is staged to be finished at shutdown is in /run (libostree `ostree-sysroot.c`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from p2p.errors import DeployError, FormatError
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import Checksum, parse_metadata

_MAX_BYTES = 1 << 20
# An update by somebody else replaces all entries at once; so often it is looked again.
_LOOKS = 10
_DEPLOYMENT = re.compile(r"([^/]+)/deploy/([0-9a-f]{64}\.[0-9]+)")
_STAGED = "run/ostree/staged-deployment"
_BOOTED = "run/ostree-booted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootable:
    """A deployment that the boot loader has an entry for, or soon will.

    Attributes:
        os: its stateroot.
        id: `COMMIT.SERIAL`.
        path: its directory.
        staged: it gets its entry when the system shuts down cleanly.
        booted: it is what runs.

    """

    os: str
    id: str
    path: str
    staged: bool = False
    booted: bool = False

    @property
    def commit(self) -> Checksum:
        """Return the commit it was made from."""
        return Checksum(self.id.partition(".")[0])

    @property
    def origin_path(self) -> str:
        """Return the file that says where it came from."""
        return f"{self.path}.origin"


def read_bootable(sysroot: str, running_root: str = "/") -> tuple[Bootable, ...]:
    """Return the deployments, the one to be booted next first.

    Args:
        sysroot: the system's physical root.
        running_root: what runs now; its `run/ostree*` and its inode are looked at.

    Raises:
        DeployError: the files of the sysroot contradict each other.

    """
    running = _running(running_root)
    entries = _settled_entries(sysroot, running)
    if not any(entry.booted for entry in entries):
        return entries
    return (*_staged(sysroot, running_root), *entries)


def _settled_entries(
    sysroot: str, running: tuple[int, int] | None
) -> tuple[Bootable, ...]:
    missing = ""
    for _ in range(_LOOKS):
        try:
            return tuple(_entries(sysroot, running))
        except FileNotFoundError as error:
            missing = error.filename
    raise DeployError(
        f"{sysroot}: a boot entry leads nowhere: {missing}",
        hint="See `ostree admin status`.",
    )


def _entries(sysroot: str, running: tuple[int, int] | None) -> Iterator[Bootable]:
    directory = os.path.join(sysroot, "boot/loader/entries")
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found = [
        _parse_entry(os.path.join(directory, name))
        for name in names
        if name.startswith("ostree-") and name.endswith(".conf")
    ]
    for _, place in sorted(found, reverse=True):
        path = os.path.realpath(os.path.join(sysroot, place.lstrip("/")))
        status = os.stat(path)
        below = os.path.join(os.path.realpath(sysroot), "ostree/deploy", "")
        match = _DEPLOYMENT.fullmatch(path.removeprefix(below))
        if match is None:
            raise DeployError(f"{sysroot}: {place} leads to no deployment: {path}")
        yield Bootable(
            os=match[1],
            id=match[2],
            path=path,
            booted=(status.st_dev, status.st_ino) == running,
        )


def _parse_entry(path: str) -> tuple[int, str]:
    """Return an entry's version, by which they are sorted, and where it leads."""
    fields: dict[str, str] = {}
    for line in _read(path).decode(errors="replace").splitlines():
        key, _, value = line.strip().partition(" ")
        fields[key] = value.strip()
    version = fields.get("version", "")
    for option in fields.get("options", "").split():
        if option.startswith("ostree=") and version.isascii() and version.isdigit():
            return int(version[:9]), option.removeprefix("ostree=")
    raise DeployError(f"{path}: not a boot entry of ostree's")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MAX_BYTES)


def _running(root: str) -> tuple[int, int] | None:
    """Return device and inode of the deployment that runs; None without ostree."""
    path = os.path.join(root, _BOOTED)
    if not os.path.exists(path):
        return None
    status = os.stat(root)
    for key, value in _dictionary(path):
        if key == "backing-root-device-inode":
            # The root is a composefs image; this is the directory behind it.
            device, inode = value.value
            return device, inode
    return status.st_dev, status.st_ino


def _staged(sysroot: str, root: str) -> Iterator[Bootable]:
    path = os.path.join(root, _STAGED)
    try:
        fields = dict(_dictionary(path))
    except FileNotFoundError:
        return
    target = fields.get("target", Variant("b", value=False))
    names = dict(target.value) if target.type == "a{sv}" else {}
    try:
        system, name = names["osname"].value, names["name"].value
    except KeyError:
        raise DeployError(f"{path}: names no deployment") from None
    place = f"{system}/deploy/{name}"
    if not _DEPLOYMENT.fullmatch(place):
        raise DeployError(f"{path}: names no deployment: {place[:200]!r}")
    deployed = os.path.join(os.path.realpath(sysroot), "ostree/deploy", place)
    yield Bootable(os=system, id=name, path=deployed, staged=True)


def _dictionary(path: str) -> tuple[tuple[str, Variant], ...]:
    data = _read(path)
    if not data:
        return ()
    try:
        return parse_metadata(data)
    except FormatError as error:
        raise DeployError(f"{path}: {error}") from None
