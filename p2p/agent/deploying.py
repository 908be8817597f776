"""Has the writer deploy, and remembers what a person went back from."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import trio

from p2p.agent.config import parse_refspec
from p2p.agent.state import StateFile
from p2p.agent.writing import Writer
from p2p.deploy.deployment import Deployer, Deployment, State
from p2p.deploy.history import describe_job
from p2p.deploy.journal import Journal
from p2p.deploy.journal_file import read_journal
from p2p.errors import ConfigError, DeployError, Error, FormatError
from p2p.ostree.messages import Deploy, Resume, Rollback
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo

_log = logging.getLogger(__name__)
# How often an update that waits for something is looked at: a reboot may be due.
RESUME_SECONDS = 60.0
UNCOUNTED = (
    "the boot loader counts no boots: from a kernel that does not start only a person "
    "comes back"
)


class Deploying:
    """Deployments of one agent; the writer makes them, here they are only read."""

    def __init__(
        self,
        deployer: Deployer | None,
        *,
        journal: str | None,
        repo: str,
        state: StateFile,
        writer: Writer,
    ) -> None:
        """Read with this deployer; None if nowhere to deploy to is configured.

        `journal` is the path of what the writer remembers of updates there.
        """
        self._deployer = deployer
        self._journal_path = journal
        self._repo = repo
        self._state = state
        self._writer = writer
        self._lock = trio.Lock()

    def require_target(self) -> Deployer:
        """Return the deployer; ConfigError if there is none."""
        if self._deployer is None:
            raise ConfigError(
                "deploy",
                "nowhere to deploy to is configured",
                hint="Set `tree` or `sysroot` in [deploy], for the writer too.",
            )
        return self._deployer

    def describe(self) -> list[dict[str, Any]]:
        """Return the deployments as JSON values; blocks on the disk."""
        return [] if self._deployer is None else list(map(asdict, self._list()))

    def _list(self) -> tuple[Deployment, ...]:
        return self.require_target().list()

    async def deploy(self, refspec: str) -> Deployment:
        """Deploy what a branch's ref names, also what was gone back from.

        Raises:
            ConfigError: nowhere to deploy to is configured.
            RefNotFoundError: nothing of the branch was pulled yet.
            DeployError: it could not be deployed.

        """
        self.require_target()
        parse_refspec(refspec)
        repo = await trio.to_thread.run_sync(Repo.open, self._repo)
        commit = repo.resolve(refspec)
        await self._deploy(refspec, commit)
        if commit in self._state.state.rolled_back:
            self._state.state.rolled_back.remove(commit)
            await trio.to_thread.run_sync(self._state.save)
        return await self._newest()

    async def deploy_if_new(self, refspec: str, commit: Checksum) -> None:
        """Deploy a followed branch's head, unless it is or a person went back from it.

        Nor is what failed before: it was ill, or did not start. Where another tool
        deploys, nothing is: it finds the commit here. Errors as `deploy`.
        """
        if commit in self._state.state.rolled_back:
            return
        if commit in (await self._readable_journal()).bad:
            return
        if await trio.to_thread.run_sync(self.require_target().claim):
            return
        deployments = await trio.to_thread.run_sync(self._list)
        if not deployments or deployments[0].commit != commit:
            await self._deploy(refspec, commit)

    async def _deploy(self, refspec: str, commit: Checksum) -> None:
        async with self._lock:
            await self._change(Deploy(refspec, commit))

    async def _change(self, request: Deploy | Rollback) -> None:
        """Have the writer do it; what a person should know of it is logged."""
        done = await self._writer.call(request)
        for note in done.deployed.notes if done.deployed is not None else ():
            _log.warning("%s", note)

    async def rollback(self) -> Deployment:
        """Go back to the deployment before; its successor is not deployed again.

        Raises:
            ConfigError: nowhere to deploy to is configured.
            DeployError: there is nothing to go back to.

        """
        before = await self._newest()
        async with self._lock:
            await self._change(Rollback())
        state = self._state.state
        state.rolled_back = [c for c in state.rolled_back if c != before.commit]
        state.rolled_back.append(before.commit)
        await trio.to_thread.run_sync(self._state.save)
        return await self._newest()

    async def _newest(self) -> Deployment:
        """Return what runs, or will from the next boot on."""
        for deployment in await trio.to_thread.run_sync(self._list):
            if deployment.state in (State.PENDING, State.CURRENT):
                return deployment
        raise DeployError("nothing is deployed yet")

    # -- what is under way -------------------------------------------------------------

    def journal(self) -> Journal:
        """Return what is remembered of updates; blocks on the disk.

        Raises:
            FormatError: it cannot be read; the writer's next step sets it aside.
            RepositoryError: the disk says no.

        """
        return (
            Journal()
            if self._journal_path is None
            else read_journal(self._journal_path)
        )

    def under_way(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the last update as JSON values, and what is wrong; blocks."""
        try:
            journal = self.journal()
            claim = "" if self._deployer is None else self._deployer.claim()
        except Error as error:
            return None, [str(error)]
        job = journal.job
        said = [UNCOUNTED] if journal.uncounted else []
        if claim:
            said.append(f"commits are only fetched, not deployed: {claim}")
        return (None if job is None else describe_job(job)), said

    async def _readable_journal(self) -> Journal:
        try:
            return await trio.to_thread.run_sync(self.journal)
        except FormatError:
            await self.resume()
            return await trio.to_thread.run_sync(self.journal)

    async def resume(self) -> None:
        """Have the writer take up an update that a crash or a boot has left."""
        async with self._lock:
            await self._writer.call(Resume())

    async def run(self) -> None:
        """Take up what is under way, now and whenever it may go on."""
        while self._journal_path is not None:
            try:
                job = (await self._readable_journal()).job
                if job is not None and not job.ended:
                    await self.resume()
            except Error as error:
                _log.warning("an update does not go on: %s; %s", error, error.hint)
            await trio.sleep(RESUME_SECONDS)
