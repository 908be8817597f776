"""The repository lock, compatible with libostree's.

libostree locks `.lock` with open-file-description locks (fcntl F_OFD_SETLK) over
the whole file: shared for transactions, exclusive for prune and delete. `flock`
does not interlock with these. Source: `ostree-repo.c`, lock table.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator

from p2p.errors import LockedError

# struct flock: short l_type, short l_whence, off_t l_start, off_t l_len, pid_t l_pid.
_FLOCK = struct.Struct("hhqqi4x")
# There is no way to wait for such a lock with a time limit, so it is tried again.
_RETRY_SECONDS = 0.02


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Take the lock on an open file without waiting; tell whether it was free."""
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def open_lock(path: str, *, exclusive: bool, timeout_seconds: float) -> int:
    """Return a descriptor that holds the lock until it is closed.

    Args:
        path: the lock file; it is made if it is missing.
        exclusive: whether nobody else may hold the lock, even shared.
        timeout_seconds: how long to wait; negative waits without end.

    Raises:
        LockedError: somebody else held the lock all that time.

    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        give_up = time.monotonic() + timeout_seconds
        while not try_lock(fd, exclusive=exclusive):
            if timeout_seconds >= 0 and time.monotonic() >= give_up:
                raise LockedError(
                    f"{path}: still locked by another process "
                    f"after {timeout_seconds:g} seconds"
                )
            time.sleep(_RETRY_SECONDS)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def locked(path: str, *, exclusive: bool, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock for the block; see `open_lock`."""
    fd = open_lock(path, exclusive=exclusive, timeout_seconds=timeout_seconds)
    try:
        yield
    finally:
        os.close(fd)
