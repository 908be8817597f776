"""Which commits a pull is about: refs are looked up at the origin or at neighbours.

A remote that demands a signed summary has its refs looked up in that alone. While the
origin is away, the newest head that neighbours offer and the verifier believes counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from p2p.agent.heads import ask_neighbours, ask_origin_first
from p2p.agent.request import PullContext, Target, Wanted
from p2p.errors import (
    BindingError,
    CredentialsError,
    Error,
    FormatError,
    IntegrityError,
    NoSourceError,
    OriginError,
    OriginNotFoundError,
    StaleError,
    TransportError,
    TrustError,
)
from p2p.ostree.objects import Checksum
from p2p.ostree.refs import RefPath, head, mirror_ref, remote_ref
from p2p.ostree.summary import Summary, parse_summary
from p2p.trust.policy import Head, Source
from p2p.web.client.origin import SummaryFile
from p2p.wire import messages as m


class Resolver:
    """Turns what is wanted into commits.

    Attributes:
        summary: the origin's, where it was needed.
        offers: commits that neighbours sent, believed so far.

    """

    def __init__(self, context: PullContext) -> None:
        """Resolve what this pull wants."""
        self.summary: SummaryFile | None = None
        self.offers: dict[Checksum, m.CommitData] = {}
        self._refs = Summary()
        self._context = context
        self._repo = context.repo
        self._origin = context.origin
        self._verifier = context.verifier
        self._remote = context.remote
        self._request = context.request

    async def resolve(self) -> tuple[Target, ...]:
        """Return the commits to pull.

        Raises:
            OriginNotFoundError: the origin has no such ref, or no summary.
            TrustError: the summary must be signed and is not.
            StaleError: the origin cannot be reached, and nobody else would do.
            OriginError, TransportError: nobody can say.

        """
        if self._request.mirror or self._verifier.demands_signed_summary:
            await self._load_summary()
        if not self._request.wanted:
            return tuple(self._everything())
        return tuple([await self._find(wanted) for wanted in self._request.wanted])

    # -- the summary -------------------------------------------------------------

    async def _load_summary(self) -> None:
        if self._origin is not None:
            self.summary = await self._origin.summary()
        if self.summary is None:
            self._verifier.verify_summary(None, None)
            return
        self._verifier.verify_summary(self.summary.data, self.summary.signature)
        self._refs = parse_summary(self.summary.data)

    def _everything(self) -> Iterator[Target]:
        """Yield all refs of the summary; a mirror gets what the summary says."""
        if self.summary is None:
            raise OriginNotFoundError(
                f"{self._remote.url} has no summary, so its refs cannot be listed",
                hint="Name the ref, or have the publisher run `ostree summary -u`.",
            )
        main = self._refs.collection_id
        groups = [(main, self._refs.refs), *self._refs.collections().items()]
        for collection, entries in groups:
            for entry in entries:
                yield self._target(entry.ref, entry.commit, collection, confirmed=True)

    # -- one ref -----------------------------------------------------------------

    async def _find(self, wanted: Wanted) -> Target:
        ref, commit = wanted.ref, wanted.commit
        if ref is None and commit is not None:
            return Target(ref=None, path=None, commit=commit, named=True)
        if ref is None:
            raise ValueError("neither a ref nor a commit")
        collection = self._refs.collection_id
        if commit is not None:
            return self._target(ref, commit, collection, named=True)
        commit, confirmed = await self._find_head(ref)
        return self._target(ref, commit, collection, confirmed=confirmed)

    def _target(
        self,
        ref: str,
        commit: Checksum,
        collection: str | None,
        *,
        named: bool = False,
        confirmed: bool = False,
    ) -> Target:
        demanded = self._remote.collection_id
        if not self._request.mirror:
            path, collection = remote_ref(self._remote.name, ref), demanded
        else:
            path, collection = self._mirror_path(ref, collection)
        return Target(
            ref=ref,
            path=path,
            commit=commit,
            collection=collection,
            named=named,
            confirmed=confirmed,
        )

    def _mirror_path(
        self, ref: str, collection: str | None
    ) -> tuple[RefPath, str | None]:
        """Return where a mirror keeps a ref, and what its commit must be bound to."""
        demanded = self._remote.collection_id
        if collection is None or collection == self._repo.config.collection_id:
            return head(ref), demanded
        if demanded not in (None, collection):
            raise BindingError(
                f"the origin has {ref} for collection {collection!r}; the remote's "
                f"is {demanded!r}"
            )
        return mirror_ref(collection, ref), collection

    async def _find_head(self, ref: str) -> tuple[Checksum, bool]:
        """Return the origin's head, True; while it is away, the neighbours' newest."""
        collection = self._remote.collection_id
        if self._verifier.demands_signed_summary:
            entry = self._refs.find(ref, collection=collection)
            if entry is None:
                raise OriginNotFoundError(f"the origin's summary has no ref {ref}")
            return entry.commit, True
        origin, neighbours = self._origin, self._context.neighbours

        async def ask_origin() -> tuple[Checksum, bool]:
            if origin is None:
                raise NoSourceError(f"there is nobody to ask for the ref {ref}")
            return await origin.resolve_ref(ref, collection=collection), True

        async def ask_others() -> tuple[Checksum, bool] | None:
            newest = await self._ask_neighbours(ref, collection)
            return None if newest is None else (newest, False)

        if self._request.confirmed_only:
            return await _insist(ref, ask_origin)
        if origin is not None or neighbours is None:
            return await ask_origin_first(neighbours, ask_origin, ask_others)
        found = await ask_others()
        if found is None:
            verb = "shares" if neighbours.has_sources else "was found to ask for"
            raise NoSourceError(f"no neighbour {verb} the ref {ref}")
        return found

    async def _ask_neighbours(
        self, ref: str, collection: str | None
    ) -> Checksum | None:
        """Return the newest head that neighbours offer, None if none does."""
        neighbours = self._context.neighbours
        if neighbours is None:
            return None
        offers = await ask_neighbours(
            neighbours, lambda number: m.GetHead(number, ref, collection or "")
        )
        return self._newest_offer(ref, offers)

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
                    clock=self._context.clock(),
                )
            except (TrustError, FormatError, IntegrityError) as error:
                refusal = error
                continue
            heads.append(verified.head)
            self.offers[offer.checksum] = offer
        if not heads and refusal is not None:
            raise refusal
        return max(heads, key=lambda head: head.timestamp).checksum if heads else None


async def _insist(
    ref: str, ask_origin: Callable[[], Awaitable[tuple[Checksum, bool]]]
) -> tuple[Checksum, bool]:
    """Return the origin's head; StaleError where neighbours would be asked instead."""
    try:
        return await ask_origin()
    except (OriginNotFoundError, CredentialsError):
        raise
    except (OriginError, TransportError, NoSourceError) as error:
        raise StaleError(
            f"the head of {ref} was not confirmed by its origin for too long: {error}"
        ) from error
