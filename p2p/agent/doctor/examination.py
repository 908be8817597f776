"""All checks, in the order in which one failure explains the next."""

from __future__ import annotations

import os
import time
from functools import partial

import trio

from p2p.agent.config import AgentConfig, Follow
from p2p.agent.doctor import membership, network, storage, system
from p2p.agent.doctor.branches import check_branches
from p2p.agent.doctor.finding import Finding, failed, ok, warn
from p2p.agent.doctor.metering import look_at_metered
from p2p.agent.doctor.running import Status, check_agent
from p2p.agent.state import read_state
from p2p.deploy.others import active_updaters
from p2p.deploy.target import SysrootTarget
from p2p.errors import AgentError, Error, FormatError, RepositoryError
from p2p.net.interfaces import Choice
from p2p.net.netlink import read_interfaces
from p2p.ostree.repo import Repo
from p2p.trust.clock import RELEASED, clock_floor
from p2p.trust.policy import Clock


async def examine(config: AgentConfig, status: Status | None) -> list[Finding]:
    """Check everything that updates need; nothing is changed.

    Args:
        config: what the agent is configured to do.
        status: what the running agent says of itself; None if none is running.

    """
    findings, told = _told(config, status)
    check_disk = partial(_check_disk, config, running=status is not None)
    repo, found = await trio.to_thread.run_sync(check_disk)
    findings += found
    # What the configuration says of a branch, its URL and key, is more.
    follows = {follow.refspec: follow for follow in (*told, *config.follow)}
    if not follows:
        findings.append(ok("branches", "none is followed (`p2p follow REMOTE:REF`)"))
    findings += await check_branches(config, repo, follows.values())
    findings += await trio.to_thread.run_sync(_check_network, config, status)
    findings.append(await look_at_metered(config))
    findings += await trio.to_thread.run_sync(_check_system, config, repo)
    return findings


def _told(
    config: AgentConfig, status: Status | None
) -> tuple[list[Finding], list[Follow]]:
    """Return what the agent says, and what it was told to follow."""
    try:
        if status is not None:
            return check_agent(status)
        return [], list(read_state(config.state).follows.values())
    except AgentError as error:
        return [failed("agent", error)], []
    except FormatError as error:
        return [warn("memory", str(error), "The agent will set it aside itself.")], []
    except RepositoryError as error:
        return [warn("memory", str(error), "Run this as root.")], []


def _check_disk(
    config: AgentConfig, *, running: bool
) -> tuple[Repo | None, list[Finding]]:
    repo, repository = storage.open_repository(config)
    findings = [
        storage.check_directory("state", config.state, running=running),
        storage.check_socket(config.socket, running=running),
        storage.check_writer(config.writer),
        repository,
    ]
    if repo is not None:
        findings.append(storage.check_repository(repo, config, running=running))
        findings.append(storage.check_space(repo))
        if config.deploy is not None:
            findings.append(storage.check_deploy(repo, config.deploy))
    elif config.deploy is not None:
        findings.append(storage.check_unmade_deploy(config))
    return repo, findings


def _check_network(config: AgentConfig, status: Status | None) -> list[Finding]:
    own = None if status is None else status.get("port")
    findings = [network.check_port(config.listen_host, config.listen_port, own)]
    port = own or config.listen_port
    ports: list[network.Port] = [("tcp", port)] if port else []
    if config.mdns:
        choice = Choice(only=config.interfaces, never=config.never_interfaces)
        try:
            findings.append(network.check_interfaces(read_interfaces(), choice))
        except Error as error:
            findings.append(failed("interfaces", error))
        findings.append(network.check_shareable())
        ports.append(("udp", network.MDNS_PORT))
    else:
        said = ", ".join(map(str, config.peers)) or "none"
        findings.append(ok("mdns", f"off; configured neighbours: {said}"))
    findings.append(network.check_compression(wanted=config.compress))
    findings.append(network.check_firewall(network.read_firewall(), ports))
    return findings


def _check_system(config: AgentConfig, repo: Repo | None) -> list[Finding]:
    now = time.time()
    floor = RELEASED if repo is None else clock_floor(repo)
    synchronised = system.is_clock_synchronised()
    findings = [
        system.check_clock(now, floor, synchronised=synchronised),
        membership.check_identity(config, Clock(now, trusted=True, floor=floor)),
        system.check_updaters(active_updaters(), config.deploy),
    ]
    target = config.deploy
    sysroot = target.sysroot if isinstance(target, SysrootTarget) else "/"
    if os.path.isdir(os.path.join(sysroot, "ostree/deploy")):
        try:
            image = system.container_image(sysroot)
        except Error as error:
            findings.append(failed("system origin", error))
        else:
            findings.append(system.check_container(image, target))
    if isinstance(target, SysrootTarget):
        findings.append(system.check_ostree(target.sysroot))
    return findings
