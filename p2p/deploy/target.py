"""Where a repository is deployed to, as a command line says it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

from p2p.deploy.deployment import Deployer
from p2p.deploy.health import Health
from p2p.deploy.journal_file import JournalFile, journal_path
from p2p.deploy.sysroot import SysrootDeployer
from p2p.deploy.tree import TreeDeployer
from p2p.deploy.updater import Means, Updater
from p2p.deploy.verify import verify_deployable
from p2p.errors import ConfigError
from p2p.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class TreeTarget:
    """A directory for the embedded tree deployer."""

    directory: str

    def options(self) -> tuple[str, ...]:
        """Return it as options of a command line."""
        return (f"--tree={self.directory}",)


@dataclass(frozen=True, slots=True)
class SysrootTarget:
    """A bootable system that `ostree admin` writes; `os` is its stateroot."""

    sysroot: str
    os: str | None = None

    def options(self) -> tuple[str, ...]:
        """Return it as options of a command line."""
        name = (f"--os={self.os}",) if self.os is not None else ()
        return (f"--sysroot={self.sysroot}", *name)


Target = TreeTarget | SysrootTarget


def make_target(
    *, tree: str | None = None, sysroot: str | None = None, os_name: str | None = None
) -> Target | None:
    """Return the target that options name, None if they name none.

    Raises:
        ConfigError: they contradict each other.

    """
    if tree is not None and (sysroot is not None or os_name is not None):
        raise ConfigError("--tree", "contradicts --sysroot and --os")
    if tree is not None:
        return TreeTarget(tree)
    if sysroot is not None:
        return SysrootTarget(sysroot, os_name)
    if os_name is not None:
        raise ConfigError("--os", "needs --sysroot")
    return None


def open_deployer(repo: Repo, target: Target) -> Deployer:
    """Return the deployer for a target; nothing is written yet.

    Raises:
        ConfigError: the repository is not the one of the sysroot.

    """
    if isinstance(target, TreeTarget):
        return TreeDeployer(repo, os.path.expanduser(target.directory))
    return SysrootDeployer(repo, target.sysroot, target.os)


def journal_of(repo: Repo, target: Target) -> str:
    """Return the path of the journal of what is deployed to a target."""
    if isinstance(target, TreeTarget):
        return journal_path(repo.path, os.path.expanduser(target.directory))
    return journal_path(repo.path, target.sysroot)


def open_updater(
    repo: Repo, target: Target, *, booted: Health | None = None
) -> Updater:
    """Return what updates a target; nothing is written yet.

    Args:
        repo: where the commits are.
        target: where they go to.
        booted: how a bootable system is checked, if it is by this process: one that
            is shut off from the network cannot tell. A tree always is.

    Raises:
        ConfigError: the repository is not the one of the sysroot.

    """
    checks = Health() if isinstance(target, TreeTarget) else booted
    means = Means(
        verify=partial(verify_deployable, repo),
        check=(checks or Health()).check,
        checks=checks is not None,
    )
    journal = JournalFile(journal_of(repo, target))
    return Updater(open_deployer(repo, target), journal, means)
