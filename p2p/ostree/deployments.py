"""What is deployed from a repository, and which files of it are its objects; read only.

Layout of a bootable system: SYSROOT/ostree/repo beside
SYSROOT/ostree/deploy/OS/deploy/COMMIT.SERIAL (libostree `ostree-sysroot.c`,
_ostree_sysroot_parse_deploy_path_name). Trees of `p2p.deploy.tree` are anywhere, so
the repository remembers where: REPO/extensions/p2p/deployed/OWNER has the directory
that holds deployments/COMMIT.SERIAL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from p2p.ostree.disk import write_file
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.places import Place
from p2p.ostree.repo import Repo

TREES = "deployments"
_DIRECTORY = re.compile(r"([0-9a-f]{64})\.[0-9]+")
_ROOTS = "extensions/p2p/deployed"
_MAX_PATH = 4096


@dataclass(frozen=True, slots=True)
class Deployment:
    """A directory that was checked out from a commit, to be run."""

    path: str
    commit: Checksum


def list_deployments(repo: Repo) -> Iterator[Deployment]:
    """Yield what is deployed from a repository."""
    ostree = os.path.dirname(os.path.realpath(repo.path))
    systems = os.path.join(ostree, "deploy")
    if os.path.basename(ostree) == "ostree":
        for system in _entries(systems):
            yield from _in(os.path.join(systems, system, "deploy"))
    for root in _roots(repo):
        yield from _in(os.path.join(root, TREES))


def deployed_commits(repo: Repo) -> set[Checksum]:
    """Return the commits that are deployed."""
    return {deployment.commit for deployment in list_deployments(repo)}


def deployed_files(
    repo: Repo, name: ObjectName, places: Iterable[Place]
) -> Iterator[str]:
    """Yield the files of deployments that are this very object.

    `places` is where their commits have it.
    """
    if name.type is not ObjectType.FILE:
        return
    try:
        ours = os.lstat(repo.object_path(name))
    except FileNotFoundError:
        return
    paths: dict[Checksum, list[str]] = {}
    for place in places:
        paths.setdefault(place.commit, []).append(place.path)
    for deployment in list_deployments(repo):
        for path in paths.get(deployment.commit, ()):
            if _is_inode(deployment.path + path, ours):
                yield deployment.path + path


def remember_root(repo: Repo, owner: str, root: str) -> None:
    """Note where a place of deployments is; errors as `p2p.ostree.disk.writing`."""
    path = os.path.join(repo.path, _ROOTS, owner)
    data = os.fsencode(root)
    if _read(path) != data:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_file(path, data, fsync=repo.config.fsync)


def _roots(repo: Repo) -> Iterator[str]:
    directory = os.path.join(repo.path, _ROOTS)
    for owner in _entries(directory):
        root = os.fsdecode(_read(os.path.join(directory, owner)))
        if os.path.isabs(root):
            yield root


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_PATH)
    except FileNotFoundError:
        return b""


def _in(directory: str) -> Iterator[Deployment]:
    for name in _entries(directory):
        path = os.path.join(directory, name)
        if (match := _DIRECTORY.fullmatch(name)) and os.path.isdir(path):
            yield Deployment(path, Checksum(match[1]))


def _entries(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_inode(path: str, inode: os.stat_result) -> bool:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (status.st_dev, status.st_ino) == (inode.st_dev, inode.st_ino)
