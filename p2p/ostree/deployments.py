"""The deployments of the sysroot that a repository belongs to; read only.

Layout: SYSROOT/ostree/repo beside SYSROOT/ostree/deploy/OS/deploy/COMMIT.SERIAL
(libostree `ostree-sysroot.c`, _ostree_sysroot_parse_deploy_path_name).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo

_DIRECTORY = re.compile(r"([0-9a-f]{64})\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A directory that was checked out from a commit, to be booted."""

    path: str
    commit: Checksum


def list_deployments(repo: Repo) -> Iterator[Deployment]:
    """Yield what is deployed from a repository; nothing where it is no sysroot's."""
    ostree = os.path.dirname(os.path.realpath(repo.path))
    systems = os.path.join(ostree, "deploy")
    if os.path.basename(ostree) != "ostree" or not os.path.isdir(systems):
        return
    for system in sorted(os.listdir(systems)):
        directory = os.path.join(systems, system, "deploy")
        if not os.path.isdir(directory):
            continue
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            if (match := _DIRECTORY.fullmatch(name)) and os.path.isdir(path):
                yield Deployment(path, Checksum(match[1]))


def deployed_commits(repo: Repo) -> set[Checksum]:
    """Return the commits that are deployed."""
    return {deployment.commit for deployment in list_deployments(repo)}
