"""Where a repository is deployed to, as a command line says it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from p2p.deploy.deployment import Deployer
from p2p.deploy.sysroot import SysrootDeployer
from p2p.deploy.tree import TreeDeployer
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
