"""Checks of what lies on the disk: state, socket, repository, deployments."""

from __future__ import annotations

import os
import stat

from p2p.agent.config import AgentConfig
from p2p.agent.doctor.finding import Finding, fail, failed, ok, warn
from p2p.deploy.target import SysrootTarget, Target, open_deployer
from p2p.errors import Error, NoSpaceError
from p2p.ostree.config import RepoMode
from p2p.ostree.disk import disk_error
from p2p.ostree.repo import Repo

# sockaddr_un of Linux holds 108 bytes, the last one 0.
_MAX_SOCKET_PATH = 107
# Less is soon used up by the next image, and by what other programs write.
SCARCE_BYTES = 512 << 20
_OWNER = "Run the agent as the owner of it, or name another one in the configuration."


def _may_write(path: str) -> bool:
    return os.access(path, os.W_OK | os.X_OK, effective_ids=True)


def _nearest(path: str) -> str:
    """Return the directory that is there, of a path and what is above it."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def check_directory(check: str, path: str, *, running: bool) -> Finding:
    """Tell whether this user may keep things in a directory, now or once it is made.

    If the agent is running, that is proved, and this may be another user.
    """
    there = _nearest(path)
    if not os.path.isdir(there):
        return fail(check, f"{there} is no directory", "Move it out of the way.")
    if running:
        return ok(check, path)
    if not _may_write(there):
        return fail(check, f"{there} cannot be written by this user", _OWNER)
    return ok(check, path if there == path else f"{path} will be made")


def check_socket(path: str, *, running: bool) -> Finding:
    """Tell whether commands can reach the agent there."""
    length = len(os.fsencode(path))
    if length > _MAX_SOCKET_PATH:
        return fail(
            "socket",
            f"{path} has {length} bytes, more than the {_MAX_SOCKET_PATH} of a socket",
            "Set `socket` to a shorter path.",
        )
    if not running and os.path.lexists(path) and not _is_socket(path):
        return fail("socket", f"{path} is no socket", "Move it out of the way.")
    directory = check_directory("socket", os.path.dirname(path), running=running)
    return directory if directory.remedy else ok("socket", path)


def _is_socket(path: str) -> bool:
    return os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode)


def check_writer(writer: str) -> Finding:
    """Tell whether somebody will write the repository for the agent."""
    if writer in ("thread", "process"):
        return ok("writer", f"the agent's own {writer}")
    if _is_socket(writer):
        return ok("writer", writer)
    return fail(
        "writer",
        f"there is no socket {writer}",
        "Start it: `systemctl enable --now ostree-p2p-writer.socket`.",
    )


def open_repository(config: AgentConfig) -> tuple[Repo | None, Finding]:
    """Return the repository, None where there is none yet, and what is found."""
    path = config.repo
    try:
        if not os.path.lexists(path) or not os.listdir(path):
            return None, _check_unmade(config)
        repo = Repo.open(path)
    except OSError as error:
        return None, failed("repository", disk_error(path, error))
    except Error as error:
        return None, failed("repository", error)
    return repo, ok("repository", f"{path}, mode {repo.config.mode}")


def _check_unmade(config: AgentConfig) -> Finding:
    """Tell whether a repository that is not there can be made."""
    if config.writer not in ("thread", "process"):
        return ok("repository", f"{config.repo} will be made by the writer")
    return check_directory("repository", config.repo, running=False)


def check_repository(repo: Repo, config: AgentConfig, *, running: bool) -> Finding:
    """Tell whether what comes can be written as it is."""
    mode = repo.config.mode
    own = config.writer in ("thread", "process")
    if own and not running and not _may_write(repo.objects):
        return fail("write", f"{repo.objects} cannot be written by this user", _OWNER)
    if mode is RepoMode.BARE_SPLIT_XATTRS:
        return fail(
            "write",
            f"repositories of mode {mode} are only read",
            "Use another repository: `p2p init --mode=bare-user`.",
        )
    if mode is RepoMode.BARE and own and os.geteuid() != 0 and not running:
        return fail(
            "write",
            "mode bare keeps owners, which only root can",
            "Run the agent as root, or with the writer of ostree-p2p-writer.socket.",
        )
    return ok("write", "by the agent" if own else "by the writer")


def check_space(repo: Repo) -> Finding:
    """Tell whether there is room for another image."""
    try:
        left = repo.check_free_space()
    except NoSpaceError as error:
        return failed("space", error)
    except OSError as error:
        return failed("space", disk_error(repo.objects, error))
    said = f"{left >> 20} MiB may be written before the reserve is reached"
    if left < SCARCE_BYTES:
        return warn("space", said, "Free some space: `p2p prune`.")
    return ok("space", said)


def check_unmade_deploy(config: AgentConfig) -> Finding:
    """Tell whether something can be deployed once there is a repository."""
    target = config.deploy
    if not isinstance(target, SysrootTarget):
        return ok("deploy", "nothing before there is a repository")
    return fail(
        "deploy",
        f"{config.repo} is not the repository of the sysroot {target.sysroot}",
        f"Set repo = {os.path.join(target.sysroot, 'ostree/repo')!r}, or deploy into a "
        "`tree`.",
    )


def check_deploy(repo: Repo, target: Target) -> Finding:
    """Tell whether the place of deployments can be read."""
    try:
        deployments = open_deployer(repo, target).list()
    except OSError as error:
        return failed("deploy", disk_error("the place of deployments", error))
    except Error as error:
        return failed("deploy", error)
    where = " ".join(target.options()).removeprefix("--")
    return ok("deploy", f"{where}, {len(deployments)} deployed")
