"""Repositories of mode bare-split-xattrs, which `ostree` 2022.7 reads, not writes."""

import hashlib
import os
import shutil
import stat
from pathlib import Path

from tests.oracle.walker import inode_xattrs, object_files

_MODE = "bare-split-xattrs"


def split_xattrs_repo(bare: Path, target: Path) -> None:
    """Copy a bare repository into a new one of mode bare-split-xattrs.

    A file's attributes go to `<sha256 of them>.file-xattrs`, to which
    `<checksum>.file-xattrs-link` is a hard link. Needs root where owners differ.
    """
    shutil.copytree(bare, target, ignore=shutil.ignore_patterns("objects"))
    config = target / "config"
    config.write_text(config.read_text().replace("mode=bare\n", f"mode={_MODE}\n"))
    for path, _, extension in object_files(bare):
        copy = target / path.relative_to(bare)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if extension != "file":
            shutil.copy2(path, copy)
            continue
        _copy_file(path, copy)
        link = copy.with_suffix(".file-xattrs-link")
        os.link(_attributes(target, inode_xattrs(path)), link)


def _attributes(repo: Path, serialised: bytes) -> Path:
    checksum = hashlib.sha256(serialised).hexdigest()
    path = repo / "objects" / checksum[:2] / f"{checksum[2:]}.file-xattrs"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(serialised)
        path.chmod(0o644)
        os.utime(path, (0, 0))
    return path


def _copy_file(path: Path, copy: Path) -> None:
    """Content, owner, mode and time of an object, without its attributes."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        copy.symlink_to(os.readlink(path))
    else:
        shutil.copyfile(path, copy)
    os.lchown(copy, status.st_uid, status.st_gid)
    if not stat.S_ISLNK(status.st_mode):
        copy.chmod(stat.S_IMODE(status.st_mode))
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(copy, ns=times, follow_symlinks=False)
