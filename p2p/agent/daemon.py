"""The agent: puts all parts together, and owns what they share.

Nothing is shared and nobody is looked for until somebody says so (`p2p enable`, the
configuration, or a branch named on the command line). Branches are followed either
way; without neighbours they come from their origins alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, fields, replace
from typing import Any

import trio

from p2p import __version__
from p2p.agent.api import Api
from p2p.agent.config import AgentConfig, Follow
from p2p.agent.deploying import Deploying
from p2p.agent.following import Branch, Following
from p2p.agent.limiting import Limiting
from p2p.agent.meeting import Meeting, MeetingOptions, open_meeting
from p2p.agent.remotes import ensure_remote
from p2p.agent.service_manager import notify
from p2p.agent.state import StateFile
from p2p.agent.writing import Writer
from p2p.deploy.deployment import Deployer
from p2p.deploy.history import describe
from p2p.deploy.target import journal_of, open_deployer
from p2p.errors import ConfigError, Error
from p2p.net.traffic import Traffic
from p2p.ostree.holdings import Holdings
from p2p.ostree.refs import remote_ref
from p2p.ostree.repo import Repo
from p2p.trust.clock import clock_floor
from p2p.web.client.fetch import Fetcher
from p2p.web.server.http1 import Server
from p2p.web.server.listen import open_listeners

_log = logging.getLogger(__name__)
# Sessions come up within two seconds of a start; what is fetched before then comes
# from the origin though a neighbour has it.
SETTLE_SECONDS = 2.5
# After what keeps neighbours from being met, such as a missing certificate.
MEET_AGAIN_SECONDS = 60.0


class Agent:
    """One running agent, as the local API sees it."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        state: StateFile,
        following: Following,
        deploying: Deploying,
        limiting: Limiting,
        reread: Callable[[], AgentConfig],
        share: bool,
    ) -> None:
        """Start with everything closed; `run` opens it.

        Args:
            config: what was configured.
            state: what is remembered.
            following: the followed branches.
            deploying: deployments.
            limiting: limits.
            reread: returns what is configured by now.
            share: whether neighbours are met while nobody said otherwise.

        """
        self._config = config
        self._state = state
        self._following = following
        self._deploying = deploying
        self._limiting = limiting
        self._reread = reread
        self._share = share
        self._meeting: Meeting | None = None
        self._failure = ""
        self._is_settling = False
        self._session = trio.CancelScope()

    @property
    def enabled(self) -> bool:
        """Whether neighbours are met and given what is shared."""
        said = self._state.state.enabled
        return self._share if said is None else said

    async def run(self) -> None:
        """Follow branches, with neighbours or without, until cancelled."""
        while True:
            with trio.CancelScope() as self._session:
                await self._run_session()

    async def _run_session(self) -> None:
        """Run until the agent is told to begin anew, because it was reconfigured."""
        if not self.enabled:
            await self._following.run(None)
        async with AsyncExitStack() as stack:
            try:
                repo = await trio.to_thread.run_sync(Repo.open, self._config.repo)
                floor = await trio.to_thread.run_sync(clock_floor, repo)
                options = replace(MeetingOptions.of(self._config), clock_floor=floor)
                meeting = await stack.enter_async_context(
                    open_meeting(Holdings.of(repo), options, self._limiting.traffic)
                )
            except Error as error:
                # An agent that ended now would get no updates from the origin either.
                self._failure = f"no neighbours are met: {error}; {error.hint}"
                _log.error(self._failure)
                with trio.move_on_after(MEET_AGAIN_SECONDS):
                    await self._following.run(None)
                return
            self._failure = ""
            self._meeting = meeting
            meeting.company = replace(meeting.company, rules=self._limiting)
            stack.callback(self._forget_meeting)
            await self._share_heads(meeting, repo)
            meeting.neighbours.subscribe(self._following.hear)
            self._is_settling = options.mdns
            await trio.sleep(SETTLE_SECONDS if options.mdns else 0)
            self._is_settling = False
            await self._following.run(meeting.company)

    def _forget_meeting(self) -> None:
        self._meeting = None

    async def _share_heads(self, meeting: Meeting, repo: Repo) -> None:
        for branch in self._following.branches():
            await self._share_head(meeting, repo, branch.follow)
        try:
            old = await trio.to_thread.run_sync(self._following.shareable_old, repo)
            for commit in old:
                await meeting.company.share_commit(commit)
        except Error as error:
            _log.warning("what is kept is not shared: %s", error)

    async def _share_head(self, meeting: Meeting, repo: Repo, follow: Follow) -> None:
        """Let neighbours have at once what is here of a branch."""
        try:
            head = await trio.to_thread.run_sync(
                self._following.shareable, repo, follow
            )
            if head is not None:
                await meeting.company.share([head])
        except Error as error:
            # It is not given to anybody, and the next pull repairs it.
            _log.warning("%s is not shared: %s", follow.refspec, error)

    # -- commands ------------------------------------------------------------------

    async def enable(self, *, enabled: bool) -> None:
        """Share and look for neighbours, or do neither, also after a restart."""
        before = self.enabled
        self._state.state.enabled = enabled
        await self._save()
        if enabled is not before:
            self._session.cancel()

    async def follow(self, follow: Follow) -> None:
        """Keep up with a branch, also after a restart.

        Raises:
            ConfigError: the remote does not exist, or a file configures the branch.

        """
        self._refuse_configured(follow.refspec)
        if follow.deploy:
            self._deploying.require_target()
        repo = await trio.to_thread.run_sync(Repo.open, self._config.repo)
        ensure_remote(repo, follow)
        self._state.state.follows[follow.refspec] = follow
        await self._save()
        self._following.add(follow)
        if self._meeting is not None:
            await self._share_head(self._meeting, repo, follow)

    async def unfollow(self, refspec: str) -> None:
        """Keep up with a branch no more; what was pulled of it stays.

        Raises:
            ConfigError: it is not followed, or a file configures it.

        """
        self._refuse_configured(refspec)
        if self._state.state.follows.pop(refspec, None) is None:
            raise _not_followed(refspec)
        await self._save()
        self._following.remove(refspec)

    def _refuse_configured(self, refspec: str) -> None:
        if any(follow.refspec == refspec for follow in self._config.follow):
            raise ConfigError(
                f"branch {refspec}",
                "is followed because a configuration file says so",
                hint="Change that file and restart the agent.",
            )

    def check(self, refspec: str | None) -> None:
        """Look for a new head of one branch now, or of all.

        Raises:
            ConfigError: it is not followed.

        """
        if refspec is None:
            for branch in self._following.branches():
                self._following.check(branch)
            return
        self._following.check(self._branch(refspec))

    def _branch(self, refspec: str) -> Branch:
        branch = self._following.get(refspec)
        if branch is None:
            raise _not_followed(refspec)
        return branch

    async def deploy(self, refspec: str) -> dict[str, Any]:
        """Deploy the head of a branch that the repository has.

        Raises:
            ConfigError: nowhere to deploy to is configured.
            RefNotFoundError: nothing of the branch was pulled yet.
            DeployError: it could not be deployed.

        """
        return asdict(await self._deploying.deploy(refspec))

    async def rollback(self) -> dict[str, Any]:
        """Go back to the deployment before; errors as `deploy`."""
        return asdict(await self._deploying.rollback())

    async def history(self, after: int) -> dict[str, Any]:
        """Return the steps of updates behind an event, and the update under way.

        Raises:
            FormatError, RepositoryError: the journal cannot be read.

        """
        journal = await trio.to_thread.run_sync(self._deploying.journal)
        return describe(journal, after)

    async def _save(self) -> None:
        await trio.to_thread.run_sync(self._state.save)

    # -- limits --------------------------------------------------------------------

    def limits(self) -> dict[str, Any]:
        """Return what is limited, and who said so, as JSON values."""
        return self._limiting.describe()

    async def set_limits(self, texts: Mapping[str, str], until: float | None) -> None:
        """Have limits hold until a time or further notice, also after a restart.

        Raises:
            ConfigError: one of them is wrong.

        """
        await self._limiting.set(texts, until)

    async def reset_limits(self, names: Sequence[str]) -> None:
        """Have configured limits hold again: these, or all."""
        await self._limiting.reset(names)

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again; limits and hours hold at once.

        Returns what else has changed, for which a restart is needed.

        Raises:
            ConfigError: something in it is wrong; then nothing changes.

        """
        config = await trio.to_thread.run_sync(self._reread)
        self._limiting.configure(config)
        changed = [
            each.name.replace("_", "-")
            for each in fields(config)
            if each.name not in ("limits", "hours")
            and getattr(config, each.name) != getattr(self._config, each.name)
        ]
        return {"restart": changed}

    # -- what is known ---------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Return all that is known, as JSON values."""
        repo = await trio.to_thread.run_sync(Repo.open, self._config.repo)
        meeting, state = self._meeting, self._state.state
        branches = [self._describe(b, repo) for b in self._following.branches()]
        updates = [asdict(update) for update in state.updates]
        # Last, so that what an update says it deployed is among them.
        deployments = await trio.to_thread.run_sync(self._deploying.describe)
        update, problem = await trio.to_thread.run_sync(self._deploying.under_way)
        return {
            "version": __version__,
            "repo": repo.path,
            "enabled": self.enabled,
            "membership": "open" if self._config.fleet is None else "fleet",
            "site": self._config.site,
            "device": None if meeting is None else meeting.neighbours.me,
            "port": None if meeting is None else meeting.port,
            "neighbours": 0 if meeting is None else len(meeting.neighbours),
            "settling": meeting is not None and self._is_settling,
            "branches": branches,
            "deployments": deployments,
            "update": update,
            "updates": updates,
            "problems": [*self._problems(), *problem],
        }

    def _describe(self, branch: Branch, repo: Repo) -> dict[str, Any]:
        follow, pull = branch.follow, branch.pull
        seconds = branch.due - trio.current_time()
        return {
            "refspec": follow.refspec,
            "deploy": follow.deploy,
            "commit": repo.refs.get(remote_ref(follow.remote, follow.ref)),
            "confirmed": self._state.state.confirmed.get(follow.refspec),
            "stale": self._following.is_stale(follow),
            "failures": branch.failures,
            "next_check_seconds": None if pull else round(max(0.0, seconds), 1),
            "pull": None if pull is None else asdict(pull),
            "last": None if branch.last is None else asdict(branch.last),
        }

    def _problems(self) -> list[str]:
        problems = []
        if self._state.replaced:
            problems.append(
                f"what was remembered was damaged and set aside: {self._state.replaced}"
            )
        if self._failure:
            problems.append(self._failure)
        if self._limiting.uplink:
            problems.append(f"origins are not asked: {self._limiting.uplink}")
        if self._meeting is not None:
            problems += self._meeting.problems()
        return problems

    def peers(self) -> dict[str, list[dict[str, Any]]]:
        """Return who is met, known, banned and who left, as JSON values."""
        if self._meeting is None:
            return {"peers": [], "known": [], "members": [], "banned": [], "ended": []}
        return self._meeting.describe()


def _not_followed(refspec: str) -> ConfigError:
    return ConfigError(
        f"branch {refspec}",
        "is not followed",
        hint="`p2p status` shows what is; `p2p follow REMOTE:REF` adds to it.",
    )


# -- putting the parts together ------------------------------------------------------


OpenWriter = Callable[[AgentConfig], AbstractAsyncContextManager[Writer]]
"""Opens the writer that a configuration says; then its repository is there."""


async def run_agent(
    config: AgentConfig,
    *,
    open_writer: OpenWriter,
    share: bool,
    ready: Callable[[str], None],
    environment: Mapping[str, str],
    reread: Callable[[], AgentConfig] | None = None,
) -> None:
    """Run an agent until cancelled; SIGHUP has it read its configuration again.

    Args:
        config: its configuration.
        open_writer: opens the half that writes.
        share: whether it meets neighbours while nobody said otherwise.
        ready: is called with the local API's socket once it answers.
        environment: of the process; systemd is told through it.
        reread: returns what is configured by now; without it, that never changes.

    Raises:
        ConfigError, RepositoryError: something that it stands on is not usable.

    """
    state = StateFile(config.state)
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(open_writer(config))
        repo = await trio.to_thread.run_sync(Repo.open, config.repo)
        fetcher = await stack.enter_async_context(Fetcher())
        deploying = Deploying(
            _open_deployer(config, repo),
            journal=None if config.deploy is None else journal_of(repo, config.deploy),
            repo=repo.path,
            state=state,
            writer=writer,
        )
        limiting = Limiting(config, state=state, traffic=Traffic(), fetcher=fetcher)
        await limiting.look_at_networks()
        following = Following(
            config,
            state=state,
            writer=writer,
            fetcher=fetcher,
            deploying=deploying,
            rng=random.Random(),  # noqa: S311 - it spreads polls, no more
            rules=limiting,
        )
        limiting.subscribe(following.limits_changed)
        agent = Agent(
            config,
            state=state,
            following=following,
            deploying=deploying,
            limiting=limiting,
            reread=reread or (lambda: config),
            share=share,
        )
        listeners = _listen(config.socket)
        stack.callback(_unlink, config.socket)
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, listeners, agent)
            nursery.start_soon(limiting.run)
            nursery.start_soon(deploying.run)
            ready(config.socket)
            notify("READY=1", environment)
            await agent.run()


def _open_deployer(config: AgentConfig, repo: Repo) -> Deployer | None:
    return None if config.deploy is None else open_deployer(repo, config.deploy)


def _listen(path: str) -> list[socket.socket]:
    """Listen for commands; only the user and the group of the socket may give any."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    before = os.umask(0o117)
    try:
        return open_listeners(path)
    finally:
        os.umask(before)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # somebody was faster
        os.unlink(path)


async def _serve(
    listeners: list[socket.socket], agent: Agent, task_status: trio.TaskStatus[None]
) -> None:
    await Server(Api(agent).router).serve(listeners, task_status=task_status)
