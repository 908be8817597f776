"""Whether a kernel and an initramfs of a commit fit into /boot beside those there.

`ostree` would find out half-way. A commit whose kernel is one that is there needs no
more room: then its deployments share it (libostree `ostree-sysroot-deploy.c`).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator

from p2p.errors import NoSpaceError, PathNotFoundError
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from p2p.ostree.tree import DirEntry, FileEntry, children, find, inode, list_tree

_MODULES = "/usr/lib/modules"
_KERNEL = frozenset({"vmlinuz", "initramfs.img", "devicetree"})
# Boot entries, and what a filesystem needs to keep files of that size.
_MARGIN_BYTES = 1 << 20
# Device trees of all boards of a family; more is no kernel.
_MAX_FILES = 10_000


def check_boot_room(
    repo: Repo, commit: Checksum, deployed: Iterable[Checksum], sysroot: str
) -> None:
    """Return if what a commit needs in /boot fits there.

    Args:
        repo: where the commit is, as a whole.
        commit: the one to be deployed.
        deployed: those that are; their kernels are in /boot.
        sysroot: the system's physical root.

    Raises:
        NoSpaceError: it does not fit.

    """
    files = list(_kernel_files(repo, commit))
    names = {file.checksum for file in files}
    if any(names == _names(repo, other) for other in deployed):
        return
    needed = sum(inode(repo, file)[1] for file in files) + _MARGIN_BYTES
    boot = os.path.join(sysroot, "boot")
    status = os.statvfs(boot)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise NoSpaceError(
            f"{boot}: the kernel of {commit} needs {needed >> 20} MiB, and "
            f"{free >> 20} MiB are free",
            hint="Remove a deployment that nobody needs (`ostree admin undeploy`, "
            "`p2p deployments --unpin`), or make /boot larger.",
        )


def _names(repo: Repo, commit: Checksum) -> set[Checksum]:
    return {file.checksum for file in _kernel_files(repo, commit)}


def _kernel_files(repo: Repo, commit: Checksum) -> Iterator[FileEntry]:
    """Yield the files of a commit that are copied to /boot; none without a kernel."""
    try:
        modules = find(repo, commit, _MODULES)
    except PathNotFoundError:
        return
    for directory in _directories(repo, modules):
        for entry in children(repo, directory):
            if os.path.basename(entry.path) in _KERNEL:
                below = list_tree(repo, entry, recursive=True)
                for file in itertools.islice(below, _MAX_FILES):
                    if isinstance(file, FileEntry):
                        yield file


def _directories(repo: Repo, modules: DirEntry | FileEntry) -> Iterator[DirEntry]:
    if isinstance(modules, DirEntry):
        for entry in children(repo, modules):
            if isinstance(entry, DirEntry):
                yield entry
