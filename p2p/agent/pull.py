"""Pulls refs from an origin: trust first, then objects, then one visible step.

The way of the data: ref → commit and signatures → verified → survey of what is
missing → origin → writer's staging store → published. Nothing is visible in the
repository before the last step, and everything staged survives an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio

from p2p.agent.caches import Caches
from p2p.agent.commits import Chain, Commits
from p2p.agent.company import Company
from p2p.agent.fetching import Fetching
from p2p.agent.request import PullContext, PulledRef, PullRequest, Target
from p2p.agent.resolver import Resolver
from p2p.agent.survey import Survey, Tally
from p2p.agent.writing import Writer
from p2p.errors import single_error
from p2p.ostree.config import RemoteConfig, RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.messages import Form, KeepSummary, Publish
from p2p.ostree.objects import Checksum, Commit, ObjectName
from p2p.ostree.repo import Repo
from p2p.trust.clock import device_clock
from p2p.trust.verify import Verifier
from p2p.web.client.origin import Origin


@dataclass(slots=True)
class PullStatus:
    """How far a pull is, for whoever draws it; changed as it goes on.

    Attributes:
        phase: `refs`, `objects`, `publish` or `done`.
        total_objects: how many objects are known to be needed so far.
        total_known: whether that number is final.
        staged_objects: how many of them arrived.

    """

    phase: str = "refs"
    total_objects: int = 0
    total_known: bool = False
    staged_objects: int = 0
    origin: Tally = field(default_factory=Tally)
    peers: Tally = field(default_factory=Tally)
    local: Tally = field(default_factory=Tally)


class Pull:
    """One pull; `run` it once."""

    def __init__(
        self,
        *,
        repo: Repo,
        origin: Origin | None,
        writer: Writer,
        verifier: Verifier,
        remote: RemoteConfig,
        request: PullRequest,
        now: Callable[[], float],
        company: Company | None = None,
    ) -> None:
        """Prepare a pull.

        Args:
            repo: what to pull into; the writer has its staging store open.
            origin: where from; None to ask neighbours only.
            writer: writes the repository.
            verifier: what the remote demands of commits.
            remote: the remote's configuration.
            request: what is wanted.
            now: the time, in seconds since 1970.
            company: the neighbours to draw on and to share with, if any.

        """
        self.status = PullStatus()
        self._company = company or Company.nobody()
        self._repo = repo
        self._holdings = Holdings.of(repo)
        self._origin = origin
        self._writer = writer
        self._remote = remote
        self._request = request
        clock = device_clock(repo)
        context = PullContext(
            repo=repo,
            remote=remote,
            request=request,
            verifier=verifier,
            clock=lambda: clock(now()),
            origin=origin,
            neighbours=None if company is None else company.neighbours,
        )
        self._resolver = Resolver(context)
        self._commits = Commits(
            context,
            holdings=self._holdings,
            writer=writer,
            offers=self._resolver.offers,
        )
        self._survey = Survey(self._holdings)
        if request.caches:
            self._survey.elsewhere = self._is_cached
        self.status.local = self._survey.local
        self._from_origin = Tally()
        self._pulled: Sequence[Target] = ()
        archive = repo.config.mode is RepoMode.ARCHIVE
        self._form = Form.FILEZ if archive else Form.CANONICAL

    async def run(self) -> tuple[PulledRef, ...]:
        """Pull everything asked for; what was staged is kept if this raises.

        Raises:
            TrustError: a commit must not be used; no content was fetched for it.
            OriginError, TransportError: the origin failed for good.
            RepositoryError: the repository or its disk did.

        """
        try:
            return await self._run()
        except BaseExceptionGroup as group:
            # Tasks side by side: where one failed the others were cancelled.
            error = single_error(group)
            if error is None:
                raise
            raise error from None

    async def _run(self) -> tuple[PulledRef, ...]:
        self._repo.check_free_space()
        targets = await self._resolver.resolve()
        results = [await self._commits.accept(target) for target in targets]
        chains = [await self._commits.history(target) for target in targets]
        if not self._request.metadata_only:
            await self._fetch_objects(targets, chains)
        self._refresh()
        self.status.phase = "publish"
        await self._publish(targets, chains)
        self.status.phase = "done"
        self._pulled = targets
        return tuple(results)

    # -- objects -----------------------------------------------------------------

    def _is_cached(self, name: ObjectName) -> bool:
        return any(cache.has(name) for cache in self._request.caches)

    async def _fetch_objects(
        self, targets: Sequence[Target], chains: Sequence[Chain]
    ) -> None:
        self.status.phase = "objects"
        checksums = dict.fromkeys(checksum for chain in chains for checksum, _ in chain)
        wanted = [c for c in checksums if self._holdings.load_complete(c) is None]
        commits = [self._commits.load(checksum) for checksum in wanted]
        await trio.to_thread.run_sync(self._survey_commits, targets, commits)
        self._refresh()
        if not self._survey.complete:
            with self._company.fetching(
                survey=self._survey,
                writer=self._writer,
                origin=self._origin,
                form=self._form,
                progressed=self._refresh,
            ) as fetching:
                self._from_origin = fetching.from_origin
                self.status.peers = fetching.from_peers
                self._company.begin(wanted[-1])
                await self._fetch(fetching, wanted[-1])
        for commit in commits:
            self._survey.closure.check_bounds(commit)

    async def _fetch(self, fetching: Fetching, commit: Checksum) -> None:
        caches = Caches(
            self._request.caches,
            survey=self._survey,
            writer=self._writer,
            arrived=fetching.copied,
            missed=lambda: fetching.want(commit),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caches.run)
            await fetching.run(commit)
            nursery.cancel_scope.cancel()

    def _survey_commits(
        self, targets: Iterable[Target], commits: Iterable[Commit]
    ) -> None:
        """Look for what is missing, beside what the refs name now."""
        paths = [target.path for target in targets if target.path is not None]
        current = (self._repo.refs.get(path) for path in paths)
        baselines = (self._holdings.load_complete(checksum) for checksum in current)
        baseline = next((commit for commit in baselines if commit is not None), None)
        for commit in commits:
            self._survey.add_commit(commit, baseline)

    def _refresh(self) -> None:
        survey, status = self._survey, self.status
        status.total_objects = len(survey.closure.named)
        status.total_known = survey.all_named
        status.staged_objects = survey.staged
        fetched = self._commits.fetched.objects
        status.origin.objects = fetched + self._from_origin.objects
        if self._origin is not None:
            # What crossed the network: compressed, and requests that failed too.
            status.origin.bytes = self._origin.counters.bytes.total()

    # -- the visible step --------------------------------------------------------

    async def _publish(
        self, targets: Sequence[Target], chains: Sequence[Chain]
    ) -> None:
        """Publish what was named, which may be older, apart from the rest."""
        request = self._request
        for allow_older in (False, True):
            pairs = [
                (target, chain)
                for target, chain in zip(targets, chains, strict=True)
                if allow_older is (target.named and not request.timestamp_check)
            ]
            if not pairs:
                continue
            commits = dict.fromkeys(entry for _, chain in pairs for entry in chain)
            await self._writer.call(
                Publish(
                    remote=self._remote.name,
                    commits=tuple(commits),
                    refs=tuple(
                        (target.path, target.commit)
                        for target, _ in pairs
                        if target.path is not None
                    ),
                    metadata_only=request.metadata_only,
                    allow_older=allow_older,
                    fsync=request.fsync,
                )
            )
        summary = self._resolver.summary
        if summary is not None and request.mirror and not request.wanted:
            await self._writer.call(
                KeepSummary(self._remote.name, summary.data, summary.signature)
            )

    async def share(self) -> None:
        """Let neighbours have all of what was pulled; they had parts of it before.

        Errors as `Company.share`.
        """
        if not self._request.metadata_only:
            await self._company.share(
                (target.ref, self._remote.collection_id or "", target.commit)
                for target in self._pulled
                if target.ref is not None
            )
