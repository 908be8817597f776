"""Writing small files durably, and what the disk says as our errors."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import tempfile
from collections.abc import Iterator

from p2p.errors import NoSpaceError, ReadOnlyError, RepositoryError

_libc = ctypes.CDLL(None, use_errno=True)


def write_file(path: str, data: bytes, *, fsync: bool, mode: int = 0o644) -> None:
    """Replace a small file atomically; durable before it returns if `fsync`."""
    fd, temporary = tempfile.mkstemp(
        prefix=f".{os.path.basename(path)}-", dir=os.path.dirname(path)
    )
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            if fsync:
                os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if fsync:
        sync_directory(os.path.dirname(path))


def exists(path: str) -> bool:
    """Tell whether there is something at a path, be it a dangling link.

    Half the time of `os.path.lexists`, which raises and catches an error. Asked with
    the rights the process has: without `effective_ids` capabilities do not count.
    """
    return os.access(path, os.F_OK, effective_ids=True, follow_symlinks=False)


def sync_directory(path: str) -> None:
    """Make a directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: str) -> None:
    """Make a file's content and inode durable; a symbolic link has nothing to sync."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return
        raise
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def syncfs(fd: int) -> None:
    """Write back the whole filesystem that holds fd; OSError if that failed."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_filesystem(path: str) -> None:
    """Write back the whole filesystem that holds a path.

    Write errors from before this call may go unseen: whoever writes much keeps a
    descriptor open from the start and calls `syncfs` with it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn what the disk says in the block into our errors, naming the path."""
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: str, error: OSError) -> RepositoryError:
    """Return our error for what the disk said."""
    what = f"{error.filename or path}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(what)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ReadOnlyError(what)
    return RepositoryError(what)
