"""Two repositories of one mode compared, object by object and inode by inode."""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.oracle.walker import object_files


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """All that a file system keeps about an object file."""

    mode: str
    uid: int
    gid: int
    mtime_ns: int
    size: int
    xattrs: tuple[tuple[str, bytes], ...]
    content: str
    nlink: int | None = None


def snapshot(repo: Path, *, nlink: bool = False) -> dict[str, ObjectStat]:
    """Every object by its name, `<checksum>.<extension>`; stage included.

    The number of links is compared only on request: staging may add some.
    """
    return {
        f"{checksum}.{extension}": _stat(path, nlink=nlink)
        for path, checksum, extension in object_files(repo)
        if checksum
    }


def _stat(path: Path, *, nlink: bool) -> ObjectStat:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        content = os.fsencode(os.readlink(path))
    else:
        content = path.read_bytes()
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return ObjectStat(
        mode=stat.filemode(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size,
        xattrs=tuple(
            (name, os.getxattr(path, name, follow_symlinks=False)) for name in names
        ),
        content=hashlib.sha256(content).hexdigest(),
        nlink=status.st_nlink if nlink else None,
    )


def differences(
    expected: Mapping[str, ObjectStat], actual: Mapping[str, ObjectStat]
) -> list[str]:
    """What differs, one readable line each; empty where the two are equal.

    `.commitmeta` and `.payload-link` objects are compared like all others: leave
    them out beforehand where they may differ.
    """
    lines = [f"{name}: missing" for name in sorted(expected.keys() - actual.keys())]
    lines += [f"{name}: extra" for name in sorted(actual.keys() - expected.keys())]
    for name in sorted(expected.keys() & actual.keys()):
        lines += [
            f"{name}: {field} is {theirs!r}, not {ours!r}"
            for field in ObjectStat.__dataclass_fields__
            if (ours := getattr(expected[name], field))
            != (theirs := getattr(actual[name], field))
        ]
    return lines
