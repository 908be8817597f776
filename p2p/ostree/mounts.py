"""Mount points of this process, and making the one below a repository writable.

A booted OSTree system keeps `/sysroot` read-only. `ostree` mounts it writable in a
mount namespace of its own, where nobody else sees it, and so does a writer.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator

from p2p.errors import ReadOnlyError

_MOUNT_SECONDS = 60.0
_CLONE_NEWNS = 0x00020000


def mount_points() -> Iterator[str]:
    """Yield all mount points, a later one in front of those before it."""
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            # Spaces and the like are written as a backslash and three octal digits.
            point = re.sub(
                rb"\\([0-7]{3})",
                lambda found: bytes((int(found[1], 8),)),
                line.split()[4],
            )
            yield os.fsdecode(point)


def mount_point_of(path: str) -> str:
    """Return the mount point that a path lies in."""
    path = os.path.realpath(path)
    found = "/"
    for point in mount_points():
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found):
            found = point
    return found


def make_writable(path: str) -> None:
    """Make what a path lies in writable for this process alone, unless it is already.

    It does nothing where the path does not exist yet. From then on mounts that this
    process makes are seen by nobody but its children.

    Raises:
        ReadOnlyError: it stays read-only.

    """
    try:
        if not _is_read_only(path):
            return
    except FileNotFoundError:
        return
    point = mount_point_of(path)
    _leave_namespace(point)
    _mount(point, "--make-rslave", "/")
    _mount(point, "-o", "remount,bind,rw", "--", point)
    if _is_read_only(path):
        raise _read_only(point, "its filesystem is read-only")


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _leave_namespace(point: str) -> None:
    """Have a mount namespace of one's own from now on: unshare(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise _read_only(point, os.strerror(ctypes.get_errno()))


def _mount(point: str, *arguments: str) -> None:
    done = subprocess.run(
        ["mount", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_MOUNT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise _read_only(point, done.stderr.strip()[-500:])


def _read_only(point: str, reason: str) -> ReadOnlyError:
    return ReadOnlyError(f"{point} cannot be made writable: {reason}")
