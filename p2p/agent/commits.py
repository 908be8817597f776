"""The commits of a pull: fetched, verified and staged before any of their content."""

from __future__ import annotations

import contextlib

from p2p.agent.heads import ask_neighbours, ask_origin_first
from p2p.agent.request import PullContext, PulledRef, Target
from p2p.agent.survey import Tally
from p2p.agent.writing import Writer
from p2p.errors import (
    Error,
    FormatError,
    IntegrityError,
    NoSourceError,
    ObjectNotFoundError,
    OriginNotFoundError,
    RevokedError,
    TrustError,
)
from p2p.ostree.holdings import Holdings
from p2p.ostree.messages import Form, StageObjects, StageSignatures
from p2p.ostree.objects import Checksum, Commit, ObjectName, ObjectType
from p2p.trust.policy import Head, Source, check_not_older
from p2p.trust.sign import VerifiedSignature, merge_signatures
from p2p.trust.verify import VerifiedCommit
from p2p.web.client.origin import Origin
from p2p.wire import messages as m

Chain = list[tuple[Checksum, str | None]]
"""Commits, oldest first, each with the ref it is for: None for an ancestor."""
Found = tuple[list[tuple[bytes, bytes | None]], Source]
"""A commit with its signatures, perhaps several of these, and who says so."""


class Commits:
    """Gets the commits of one pull.

    Attributes:
        fetched: those that came from the origin.

    """

    def __init__(
        self,
        context: PullContext,
        *,
        holdings: Holdings,
        writer: Writer,
        offers: dict[Checksum, m.CommitData],
    ) -> None:
        """Get commits for this pull.

        Args:
            context: the pull.
            holdings: what is here.
            writer: stages the commits.
            offers: commits that neighbours sent already.

        """
        self.fetched = Tally()
        self._context = context
        self._repo = context.repo
        self._origin = context.origin
        self._request = context.request
        self._holdings = holdings
        self._writer = writer
        self._offers = offers

    def load(self, checksum: Checksum) -> Commit:
        """Return a commit that is here; errors as `Repo.load_metadata`."""
        name = ObjectName(checksum, ObjectType.COMMIT)
        return Commit.parse(self._holdings.load_metadata(name))

    async def accept(self, target: Target) -> PulledRef:
        """Fetch and verify a ref's new commit, compare it with the current one.

        Raises:
            TrustError: it must not be used.
            OriginNotFoundError: nobody has it.

        """
        previous = None if target.path is None else self._repo.refs.get(target.path)
        check_age = self._request.timestamp_check or not target.named
        try:
            verified = await self._get(
                target.commit,
                ref=target.ref,
                collection=target.collection,
                current=self._head(previous) if check_age else None,
            )
        except OriginNotFoundError:
            await self._check_tombstone(target.commit)
            raise
        newer_than = self._head(self._request.newer_than)
        check_not_older(verified.head, newer_than, Source.ORIGIN)
        return PulledRef(
            ref=target.ref,
            commit=target.commit,
            previous=previous,
            signed_by=verified.signed_by,
            confirmed=target.confirmed,
        )

    async def _check_tombstone(self, checksum: Checksum) -> None:
        """Tell a commit that the publisher deleted from one that was never pushed."""
        if self._origin is not None and await self._origin.is_tombstoned(checksum):
            raise RevokedError(
                f"the origin deleted commit {checksum} and keeps a tombstone of it"
            )

    def _head(self, checksum: Checksum | None) -> Head | None:
        if checksum is None:
            return None
        try:
            return Head(checksum, self._repo.load_commit(checksum).timestamp)
        except ObjectNotFoundError:
            # A ref without its commit: there is nothing to be newer than.
            return None

    async def history(self, target: Target) -> Chain:
        """Return an accepted commit and the ancestors wanted with it."""
        chain: Chain = [(target.commit, target.ref)]
        left = self._request.depth
        parent = self.load(target.commit).parent
        while left and parent is not None:
            try:
                verified = await self._get(parent)
            except (OriginNotFoundError, NoSourceError):
                # The history ends here, as it does after a prune.
                break
            chain.append((parent, None))
            parent = verified.commit.parent
            left -= 1
        return chain[::-1]

    async def _get(
        self,
        checksum: Checksum,
        *,
        ref: str | None = None,
        collection: str | None = None,
        current: Head | None = None,
    ) -> VerifiedCommit:
        """Find, verify and stage a commit with its signatures."""
        name = ObjectName(checksum, ObjectType.COMMIT)
        found, source = await self._find(name)
        verifier = self._context.verifier.bound_to(collection)
        refusal: Error | None = None
        for data, detached in found:
            try:
                verified = verifier.verify_commit(
                    data,
                    detached,
                    checksum=checksum,
                    ref=ref,
                    source=source,
                    current=current,
                    clock=self._context.clock(),
                )
            except (TrustError, FormatError, IntegrityError) as error:
                refusal = error
                continue
            is_hearsay = source is Source.NEIGHBOUR
            kept = self._merged(verified, data) if is_hearsay else detached
            await self._stage(name, data, kept)
            return verified
        raise refusal or NoSourceError(f"no neighbour has commit {checksum}")

    def _merged(self, verified: VerifiedCommit, data: bytes) -> bytes | None:
        """Return what is here of detached metadata with what a neighbour proved.

        What else a neighbour sent is nobody's word, and is not passed on.
        """
        here = self._holdings.load_commitmeta(verified.checksum)
        mine: tuple[VerifiedSignature, ...] = ()
        with contextlib.suppress(TrustError, FormatError, IntegrityError):
            mine = self._context.verifier.verify_commit(
                data, here, checksum=verified.checksum, clock=self._context.clock()
            ).signatures
        return merge_signatures(here, mine, verified.signatures)

    async def _stage(
        self, name: ObjectName, data: bytes, detached: bytes | None
    ) -> None:
        if self._holdings.load_complete(name.checksum) is None:
            await self._writer.call(StageObjects(((name, Form.CANONICAL, data),)))
        here = self._holdings.load_commitmeta(name.checksum)
        if detached is not None and detached != here:
            await self._writer.call(StageSignatures(name.checksum, detached))

    async def _find(self, name: ObjectName) -> Found:
        """Return a commit and its signatures, and who says that it is what is asked.

        Neighbours may offer the same commit with different signatures.
        """
        checksum = name.checksum
        offer = self._offers.get(checksum)
        if offer is not None:
            return [(offer.commit, offer.commitmeta)], Source.NEIGHBOUR
        origin = self._origin
        if origin is None:
            found = await self._ask_neighbours(checksum)
            return found or self._load_here(name), Source.NEIGHBOUR

        async def ask_others() -> Found | None:
            offers = await self._ask_neighbours(checksum)
            return (offers, Source.NEIGHBOUR) if offers else None

        return await ask_origin_first(
            self._context.neighbours, lambda: self._fetch(origin, name), ask_others
        )

    async def _fetch(self, origin: Origin, name: ObjectName) -> Found:
        detached = await origin.fetch_commitmeta(name.checksum)
        if not self._holdings.has(name):
            data = await origin.fetch_commit(name.checksum)
            self.fetched.add(len(data))
            return [(data, detached)], Source.ORIGIN
        if detached is None:
            detached = self._holdings.load_commitmeta(name.checksum)
        return [(self._holdings.load_metadata(name), detached)], Source.ORIGIN

    def _load_here(self, name: ObjectName) -> list[tuple[bytes, bytes | None]]:
        """Return what an earlier pull left of a commit, or nothing."""
        if not self._holdings.has(name):
            return []
        detached = self._holdings.load_commitmeta(name.checksum)
        return [(self._holdings.load_metadata(name), detached)]

    async def _ask_neighbours(
        self, checksum: Checksum
    ) -> list[tuple[bytes, bytes | None]]:
        neighbours = self._context.neighbours
        if neighbours is None:
            return []
        offers = await ask_neighbours(
            neighbours, lambda number: m.GetCommit(number, checksum)
        )
        return [(offer.commit, offer.commitmeta) for offer in offers]
