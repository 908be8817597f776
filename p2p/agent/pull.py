"""Pulls refs from an origin: trust first, then objects, then one visible step.

The way of the data: ref → commit and signatures → verified → survey of what is
missing → origin → writer's staging store → published. Nothing is visible in the
repository before the last step, and everything staged survives an interruption.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from p2p.agent.company import Company
from p2p.agent.heads import ask_neighbours
from p2p.agent.survey import Survey, Tally
from p2p.agent.writing import Writer
from p2p.errors import (
    CredentialsError,
    Error,
    FormatError,
    IntegrityError,
    NoSourceError,
    ObjectNotFoundError,
    OriginError,
    OriginNotFoundError,
    TransportError,
    TrustError,
)
from p2p.ostree.config import RemoteConfig, RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.messages import Form, Publish, StageObjects, StageSignatures
from p2p.ostree.objects import (
    Checksum,
    Commit,
    ObjectName,
    ObjectType,
)
from p2p.ostree.refs import RefPath, head, mirror_ref, remote_ref
from p2p.ostree.repo import Repo
from p2p.trust.policy import Clock, Head, Source
from p2p.trust.sign import KeyId
from p2p.trust.verify import Verifier
from p2p.web.origin import Origin
from p2p.wire import messages as m

# How many objects the origin client has to choose from, over all its connections.
ASKED_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """What to pull.

    Attributes:
        refs: each with the commit it must be, or None for the origin's head.
        mirror: set `refs/heads/REF` (or `refs/mirrors/…`) instead of the remote's.
        depth: how many ancestors to pull too; -1 means all that the origin has.
        metadata_only: only commits and their detached metadata; they stay partial.
        allow_older: take a commit that is older than the ref's current one.
        newer_than: refuse what is older than this commit.

    """

    refs: tuple[tuple[str, Checksum | None], ...]
    mirror: bool = False
    depth: int = 0
    metadata_only: bool = False
    allow_older: bool = False
    newer_than: Checksum | None = None
    fsync: bool = True


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledRef:
    """One ref that was pulled: the commit it names now, and the one before."""

    ref: str
    commit: Checksum
    previous: Checksum | None
    signed_by: tuple[KeyId, ...]


@dataclass(frozen=True, slots=True)
class _Target:
    """A ref being pulled and where it is kept."""

    ref: str
    path: RefPath
    commit: Checksum


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
        """The writer must have the repository's staging store open.

        `company` are the neighbours to draw on and to share with, if any.
        """
        self.status = PullStatus()
        self._company = company or Company.nobody()
        self._repo = repo
        self._holdings = Holdings.of(repo)
        self._origin = origin
        self._writer = writer
        self._verifier = verifier
        self._remote = remote
        self._request = request
        self._now = now
        self._floor = self._newest_pulled()
        self._offers: dict[Checksum, m.CommitData] = {}
        self._survey = Survey(self._holdings)
        self.status.local = self._survey.local
        archive = repo.config.mode is RepoMode.ARCHIVE
        self._form = Form.FILEZ if archive else Form.CANONICAL

    async def run(self) -> tuple[PulledRef, ...]:
        """Pull everything asked for; what was staged is kept if this raises.

        Raises:
            TrustError: a commit must not be used; no content was fetched for it.
            OriginError, TransportError: the origin failed for good.
            RepositoryError: the repository or its disk did.

        """
        self._repo.check_free_space()
        targets = [await self._resolve(ref, at) for ref, at in self._request.refs]
        results = [await self._verify_target(target) for target in targets]
        commits: list[tuple[Checksum, str | None]] = []
        for target in targets:
            commits += await self._collect_commits(target)
        if not self._request.metadata_only:
            await self._fetch_objects(targets, [checksum for checksum, _ in commits])
        self._refresh()
        self.status.phase = "publish"
        await self._publish(commits, targets)
        await self._company.share(
            (target.ref, self._remote.collection_id or "", target.commit)
            for target in targets
            if not self._request.metadata_only
        )
        self.status.phase = "done"
        return tuple(results)

    # -- commits -----------------------------------------------------------------

    async def _resolve(self, ref: str, commit: Checksum | None) -> _Target:
        if not self._request.mirror:
            path = remote_ref(self._remote.name, ref)
        elif self._remote.collection_id is not None:
            path = mirror_ref(self._remote.collection_id, ref)
        else:
            path = head(ref)
        if commit is None:
            commit = await self._find_head(ref)
        return _Target(ref, path, commit)

    async def _find_head(self, ref: str) -> Checksum:
        """Return the origin's head; while it is away, the neighbours' newest."""
        collection = self._remote.collection_id
        failure: Error | None = None
        if self._origin is not None:
            try:
                return await self._origin.resolve_ref(ref, collection=collection)
            except (OriginNotFoundError, CredentialsError):
                raise
            except (OriginError, TransportError) as error:
                failure = error
        offers = await ask_neighbours(
            self._company.neighbours,
            lambda number: m.GetHead(number, ref, collection or ""),
        )
        newest = self._newest_offer(ref, offers)
        if newest is None:
            raise failure or NoSourceError(f"no neighbour shares the ref {ref}")
        return newest

    def _newest_offer(
        self, ref: str, offers: Iterable[m.CommitData]
    ) -> Checksum | None:
        """Return the newest commit that a neighbour may offer for a ref."""
        heads: list[Head] = []
        refusal: Error | None = None
        for offer in offers:
            try:
                verified = self._verifier.verify_commit(
                    offer.commit,
                    offer.commitmeta,
                    checksum=offer.checksum,
                    ref=ref,
                    source=Source.NEIGHBOUR,
                    clock=Clock(self._now(), trusted=True, floor=self._floor),
                )
            except (TrustError, FormatError, IntegrityError) as error:
                refusal = error
                continue
            heads.append(verified.head)
            self._offers[offer.checksum] = offer
        if not heads and refusal is not None:
            raise refusal
        return max(heads, key=lambda head: head.timestamp).checksum if heads else None

    async def _verify_target(self, target: _Target) -> PulledRef:
        """Fetch and verify a ref's new commit and compare it with the current one."""
        previous = self._repo.refs.get(target.path)
        current = None if self._request.allow_older else self._head(previous)
        signed_by = await self._fetch_commit(target.commit, target.ref, current)
        if self._request.newer_than is not None:
            reference = self._head(self._request.newer_than)
            await self._fetch_commit(target.commit, target.ref, reference)
        return PulledRef(
            ref=target.ref,
            commit=target.commit,
            previous=previous,
            signed_by=signed_by,
        )

    def _head(self, checksum: Checksum | None) -> Head | None:
        if checksum is None:
            return None
        try:
            return Head(checksum, self._repo.load_commit(checksum).timestamp)
        except ObjectNotFoundError:
            # A ref without its commit: there is nothing to be newer than.
            return None

    async def _fetch_commit(
        self, checksum: Checksum, ref: str | None, current: Head | None
    ) -> tuple[KeyId, ...]:
        """Fetch, verify and stage a commit with its signatures; return the keys."""
        name = ObjectName(checksum, ObjectType.COMMIT)
        data, detached, source = await self._find_commit(name)
        verified = self._verifier.verify_commit(
            data,
            detached,
            checksum=checksum,
            ref=ref,
            source=source,
            current=current,
            clock=Clock(self._now(), trusted=True, floor=self._floor),
        )
        await self._writer.call(StageObjects(((name, Form.CANONICAL, data),)))
        if detached is not None and detached != self._holdings.load_commitmeta(
            checksum
        ):
            await self._writer.call(StageSignatures(checksum, detached))
        return verified.signed_by

    async def _find_commit(
        self, name: ObjectName
    ) -> tuple[bytes, bytes | None, Source]:
        """Return a commit and its signatures, and who says that it is what is asked."""
        checksum = name.checksum
        if self._origin is None and checksum not in self._offers:
            offers = await ask_neighbours(
                self._company.neighbours, lambda number: m.GetCommit(number, checksum)
            )
            self._offers |= {offer.checksum: offer for offer in offers}
        offer = self._offers.get(checksum)
        if offer is not None:
            return offer.commit, offer.commitmeta, Source.NEIGHBOUR
        if self._origin is None:
            raise NoSourceError(f"no neighbour has commit {checksum}")
        detached = await self._origin.fetch_commitmeta(checksum)
        if not self._holdings.has(name):
            return await self._origin.fetch_commit(checksum), detached, Source.ORIGIN
        if detached is None:
            detached = self._holdings.load_commitmeta(checksum)
        return self._holdings.load_metadata(name), detached, Source.ORIGIN

    def _newest_pulled(self) -> int:
        """Return a time that has passed for certain: that of the newest head pulled."""
        refs = self._repo.refs.all("remotes/")
        heads = (self._head(checksum) for _, checksum in refs)
        return max((head.timestamp for head in heads if head is not None), default=0)

    async def _collect_commits(
        self, target: _Target
    ) -> list[tuple[Checksum, str | None]]:
        """Return the commit and the ancestors wanted with it, oldest first."""
        chain: list[tuple[Checksum, str | None]] = [(target.commit, target.ref)]
        left = self._request.depth
        parent = self._load_commit(target.commit).parent
        while left and parent is not None:
            try:
                await self._fetch_commit(parent, None, None)
            except OriginNotFoundError:
                # The origin's history ends here, as it does after a prune.
                break
            chain.insert(0, (parent, None))
            parent = self._load_commit(parent).parent
            left -= 1
        return chain

    def _load_commit(self, checksum: Checksum) -> Commit:
        name = ObjectName(checksum, ObjectType.COMMIT)
        return Commit.parse(self._holdings.load_metadata(name))

    # -- objects -----------------------------------------------------------------

    async def _fetch_objects(
        self, targets: Iterable[_Target], checksums: Iterable[Checksum]
    ) -> None:
        self.status.phase = "objects"
        wanted = [c for c in checksums if self._holdings.load_complete(c) is None]
        commits = [self._load_commit(checksum) for checksum in wanted]
        await trio.to_thread.run_sync(self._survey_commits, targets, commits)
        self._refresh()
        if not self._survey.complete:
            with self._company.fetching(
                survey=self._survey,
                writer=self._writer,
                origin=self._origin,
                form=self._form,
                scratch=os.path.join(self._repo.path, "tmp"),
                progressed=self._refresh,
            ) as fetching:
                self.status.origin = fetching.from_origin
                self.status.peers = fetching.from_peers
                self._company.begin(wanted[-1])
                await fetching.run(wanted[-1])
        for commit in commits:
            self._survey.closure.check_bounds(commit)

    def _survey_commits(
        self, targets: Iterable[_Target], commits: Iterable[Commit]
    ) -> None:
        """Look for what is missing, beside what the refs name now."""
        current = (self._repo.refs.get(target.path) for target in targets)
        baselines = (self._holdings.load_complete(checksum) for checksum in current)
        baseline = next((commit for commit in baselines if commit is not None), None)
        for commit in commits:
            self._survey.add_commit(commit, baseline)

    def _refresh(self) -> None:
        survey, status = self._survey, self.status
        status.total_objects = len(survey.closure.named)
        status.total_known = survey.all_named
        status.staged_objects = survey.staged
        if self._origin is not None:
            # What crossed the network: compressed, and requests that failed too.
            status.origin.bytes = self._origin.counters.bytes.total()

    # -- the visible step --------------------------------------------------------

    async def _publish(
        self, commits: list[tuple[Checksum, str | None]], targets: list[_Target]
    ) -> None:
        await self._writer.call(
            Publish(
                remote=self._remote.name,
                commits=tuple(commits),
                refs=tuple((target.path, target.commit) for target in targets),
                metadata_only=self._request.metadata_only,
                allow_older=self._request.allow_older,
                fsync=self._request.fsync,
            )
        )
