"""Thaws the filesystems of a system whose `ostree` was killed while they were frozen.

`ostree admin` freezes /boot for a moment, so that a boot loader finds it whole, and a
child of its thaws it should it die. Where both are killed, as with a whole control
group, everything that writes hangs: also whoever would write that down.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

# _IOWR('X', 120, int) of linux/fs.h.
_FITHAW = 0xC0045878


def thaw(sysroot: str) -> None:
    """Thaw a system's filesystems; where they are not frozen, nothing is done."""
    for path in (os.path.join(sysroot, "boot"), sysroot):
        # EINVAL says that it is not frozen, EPERM that it is not ours to freeze.
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _FITHAW, 0)
            finally:
                os.close(fd)
