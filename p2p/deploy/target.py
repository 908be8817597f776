"""Where a repository is deployed to, as a command line says it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial

from p2p.deploy.boot_count import BootCounter, find_boot_counter
from p2p.deploy.deployment import Deployer
from p2p.deploy.health import Health
from p2p.deploy.journal_file import JournalFile, journal_path, read_journal
from p2p.deploy.machine import Step
from p2p.deploy.policy import Policy
from p2p.deploy.script import run_script
from p2p.deploy.settings import Settings, parse_settings
from p2p.deploy.sysroot import SysrootDeployer
from p2p.deploy.thaw import thaw
from p2p.deploy.tree import TreeDeployer
from p2p.deploy.updater import Means, Updater
from p2p.deploy.verify import verify_deployable
from p2p.errors import ConfigError, DeployError, FormatError
from p2p.ostree.repo import Repo

_CONFIRM = ("systemctl", "start", "--no-block", "ostree-p2p-confirm.service")
_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class TreeTarget:
    """A directory for the embedded tree deployer."""

    directory: str
    settings: Settings = field(default_factory=Settings)

    def options(self) -> tuple[str, ...]:
        """Return it as options of a command line."""
        return (f"--tree={self.directory}", *self.settings.options())


@dataclass(frozen=True, slots=True)
class SysrootTarget:
    """A bootable system that `ostree admin` writes; `os` is its stateroot."""

    sysroot: str
    os: str | None = None
    settings: Settings = field(default_factory=Settings)

    def options(self) -> tuple[str, ...]:
        """Return it as options of a command line."""
        name = (f"--os={self.os}",) if self.os is not None else ()
        return (f"--sysroot={self.sysroot}", *name, *self.settings.options())


Target = TreeTarget | SysrootTarget


def make_target(
    *,
    tree: str | None = None,
    sysroot: str | None = None,
    os_name: str | None = None,
    settings: str | None = None,
) -> Target | None:
    """Return the target that options name, None if they name none.

    Raises:
        ConfigError: they contradict each other.

    """
    how = Settings() if settings is None else parse_settings(settings)
    if tree is not None and (sysroot is not None or os_name is not None):
        raise ConfigError("--tree", "contradicts --sysroot and --os")
    if tree is not None:
        return TreeTarget(tree, how)
    if sysroot is not None:
        return SysrootTarget(sysroot, os_name, how)
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
    repo: Repo,
    target: Target,
    *,
    agent: str | None = None,
    is_apart: bool = False,
) -> Updater:
    """Return what updates a target; nothing is written yet.

    Args:
        repo: where the commits are.
        target: where they go to.
        agent: the socket of the agent that a healthy bootable system has.
        is_apart: this process may be shut off from the network, so another one is
            to check a bootable system and reboot it: `ostree-p2p-confirm.service`.

    Raises:
        ConfigError: the repository is not the one of the sysroot.

    """
    _recover(repo, target)
    settings = target.settings
    is_tree = isinstance(target, TreeTarget)
    health = Health(
        units=settings.units,
        socket=None if is_tree else agent,
        each_seconds=settings.each_seconds,
        timeout_seconds=settings.all_seconds,
    )
    policy = Policy(settings=settings)
    means = Means(
        verify=partial(verify_deployable, repo),
        check=health.check,
        hold=(lambda: "") if is_tree else policy.hold,
        reboot=policy.reboot,
        ready=policy.ready,
        counter=_counter_of(target),
        hand_over=start_confirming if is_apart and not is_tree else None,
    )
    journal = JournalFile(journal_of(repo, target))
    return Updater(open_deployer(repo, target), journal, means)


def _recover(repo: Repo, target: Target) -> None:
    """Let a system be written again, if an update of it was cut short."""
    if isinstance(target, TreeTarget):
        return
    try:
        job = read_journal(journal_of(repo, target)).job
    except FormatError:
        job = None  # it is set aside as soon as it may be written
    if job is not None and job.step in (Step.FETCHED, Step.ROLLING_BACK):
        thaw(target.sysroot)


def _counter_of(target: Target) -> BootCounter | None:
    """Return what counts boots of a target; a tree has none."""
    if isinstance(target, TreeTarget):
        return None
    return find_boot_counter(target.sysroot)


def start_confirming() -> None:
    """Have systemd run `p2p confirm`, where it is shut off from nothing.

    Raises:
        DeployError: it does not.

    """
    ending = run_script(_CONFIRM, timeout_seconds=_START_SECONDS)
    if ending.error:
        raise DeployError(
            f"`{' '.join(_CONFIRM)}` {ending}",
            hint="Install that service, or run `p2p confirm` at every boot.",
        )
