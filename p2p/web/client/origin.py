"""An OSTree repository over HTTP: TreeHub, nginx, a bucket, a CDN.

What comes from a remote's `url` and what from its `contenturl` is as in libostree:
summary, config, refs and `.commitmeta` from the former, all other objects from the
latter. Everything returned is bounded and checked against its name; whether it is to
be believed is for `p2p.trust` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from p2p.errors import ConfigError, FormatError, OriginError, OriginNotFoundError
from p2p.ostree import refs
from p2p.ostree.config import RemoteConfig, RepoConfig, RepoMode
from p2p.ostree.keyfile import KeyFile
from p2p.ostree.messages import Form
from p2p.ostree.objects import (
    MAX_METADATA_BYTES,
    Checksum,
    ObjectName,
    ObjectType,
    check_metadata,
    parse_checksum,
)
from p2p.ostree.summary import MAX_SUMMARY_BYTES, parse_summary
from p2p.web.client.bulk import Bulk, OriginEvent
from p2p.web.client.credentials import Credentials
from p2p.web.client.fetch import WINDOW_BYTES, Fetcher
from p2p.web.client.options import access_of
from p2p.web.client.request import DEFAULT_ACCESS, Access, Headers
from p2p.web.client.retry import Retry
from p2p.web.client.source import Counters, Source
from p2p.web.url import show

MAX_COMMITMETA_BYTES = 64 << 10
MAX_CONFIG_BYTES = 64 << 10
MAX_REF_BYTES = 4096
MAX_OBJECT_BYTES = 1 << 36
"""Content of one file: 64 GiB, more than any system image holds."""
NO_CREDENTIALS = Credentials()


class SummaryFile(NamedTuple):
    """The bytes of `summary` and of `summary.sig`, None if there is none."""

    data: bytes
    signature: bytes | None


class Origin:
    """Fetches from one origin; `want` and `next_events` fetch objects in bulk.

    Every method that asks the origin raises, besides what its docstring names:
    CredentialsError, OriginError, TransportError, and LimitError for what is longer
    than it may be. Each was tried as often as makes sense.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        remote: RemoteConfig,
        *,
        credentials: Credentials = NO_CREDENTIALS,
        headers: Headers = (),
        access: Access = DEFAULT_ACCESS,
        retry: Retry | None = None,
        max_object_bytes: int = MAX_OBJECT_BYTES,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        """Take the URLs and the TLS and proxy options of a remote.

        Args:
            fetcher: what transfers run on.
            remote: the remote's configuration.
            credentials: sent only to the server of the remote's URL and of their own.
            headers: sent only to that server as well, `x-ats-namespace` for one.
            access: timeouts; the remote's options are put on top of it.
            retry: how often and how fast to try again.
            max_object_bytes: content of a file beyond this is refused.
            window_bytes: of objects that are here and not consumed yet.

        Raises:
            ConfigError: an option or URL of the remote is wrong.

        """
        self.remote = remote
        self._source = Source(
            fetcher,
            url=remote.url,
            content_url=remote.content_url,
            access=access_of(remote, access),
            credentials=credentials,
            headers=headers,
            retry=retry or Retry(),
        )
        self._bulk = Bulk(
            self._source,
            max_object_bytes=max_object_bytes,
            window_bytes=window_bytes,
        )

    @property
    def counters(self) -> Counters:
        """What the origin was asked and has sent so far."""
        return self._source.counters

    # -- objects in bulk --------------------------------------------------------------

    def want(self, name: ObjectName, *, form: Form = Form.CANONICAL) -> None:
        """Fetch an object; what becomes of it comes out of `next_events`.

        `form` matters for files: FILEZ hands on the origin's own compressed bytes.
        Raises ValueError for what is wanted already or has no checksum for a name.
        """
        self._bulk.want(name, form=form)

    def forget(self, name: ObjectName) -> bool:
        """Stop fetching an object, and tell whether it was not over already.

        No event of it comes any more.
        """
        return self._bulk.forget(name)

    async def next_events(self) -> list[OriginEvent]:
        """Return what happened to wanted objects; wait if nothing has.

        For one task at a time. Cancelled while it waits, it loses nothing.
        """
        return await self._bulk.next_events()

    def consumed(self, size: int) -> None:
        """Report that `size` bytes out of events are dealt with: more may come."""
        self._bulk.consumed(size)

    @property
    def wanted(self) -> int:
        """How many objects are on their way."""
        return self._bulk.wanted

    # -- metadata -------------------------------------------------------------------

    async def config(self) -> RepoConfig:
        """Return the repository's configuration.

        Raises OriginError unless it is an archive repository, the only kind whose
        objects can be fetched over HTTP.
        """
        where = f"{show(self.remote.url)}: config"
        try:
            data = await self._get("config", kind="config", max_bytes=MAX_CONFIG_BYTES)
        except OriginNotFoundError as error:
            raise OriginNotFoundError(
                str(error),
                status=error.status,
                hint="There is no OSTree repository at this URL.",
            ) from None
        try:
            config = RepoConfig.parse(KeyFile.parse(data.decode(), where=where))
        except (UnicodeDecodeError, ConfigError) as error:
            raise OriginError(
                f"{where} is not that of an OSTree repository: {error}",
                hint="Check the URL; a log-in page of the network answers like this.",
            ) from None
        if config.mode is not RepoMode.ARCHIVE:
            raise OriginError(
                f"{where}: mode={config.mode}, but only archive repositories can be "
                "fetched over HTTP",
                hint="Publish an archive repository: `ostree init --mode=archive`.",
            )
        return config

    async def resolve_ref(self, ref: str, *, collection: str | None = None) -> Checksum:
        """Return the commit a ref points at, by its file or else by the summary.

        Raises OriginNotFoundError if it has no such ref, FormatError for a name that
        is none.
        """
        paths = [refs.head(ref)]
        if collection is not None:
            paths.insert(0, refs.mirror_ref(collection, ref))
        for path in paths:
            commit = await self._resolve(path)
            if commit is not None:
                return commit
        summary = await self.summary()
        entry = None
        if summary is not None:
            entry = parse_summary(summary.data).find(ref, collection=collection)
        if entry is None:
            raise OriginNotFoundError(f"{show(self.remote.url)} has no ref {ref}")
        return entry.commit

    async def _resolve(self, path: refs.RefPath) -> Checksum | None:
        try:
            data = await self._get(
                f"refs/{path}", kind="ref", max_bytes=MAX_REF_BYTES, check=_parse_ref
            )
        except OriginNotFoundError:
            return None
        except FormatError as error:
            raise OriginError(
                f"{show(self.remote.url)}: refs/{path}: {error}"
            ) from None
        return _parse_ref(data)

    async def summary(self) -> SummaryFile | None:
        """Return the summary and its signature, None if the origin has none."""
        data = await self._find("summary", kind="summary", max_bytes=MAX_SUMMARY_BYTES)
        if data is None:
            return None
        signature = await self._find(
            "summary.sig", kind="summary", max_bytes=MAX_METADATA_BYTES
        )
        return SummaryFile(data, signature)

    async def list_refs(self) -> dict[str, Checksum]:
        """Return all refs by name, which only a summary tells.

        Raises OriginNotFoundError if the origin has none, as TreeHub never does.
        """
        summary = await self.summary()
        if summary is None:
            raise OriginNotFoundError(
                f"{show(self.remote.url)} has no summary, so its refs cannot be listed",
                hint="Name the ref, or have the publisher run `ostree summary -u`.",
            )
        return {entry.ref: entry.commit for entry in parse_summary(summary.data).refs}

    async def fetch_commit(self, commit: Checksum) -> bytes:
        """Return a commit object, its checksum verified.

        Raises OriginNotFoundError if no mirror has it, IntegrityError if none has it
        undamaged.
        """
        name = ObjectName(commit, ObjectType.COMMIT)
        return await self._source.get(
            self._source.content,
            f"objects/{name.path()}",
            kind="commit",
            max_bytes=MAX_METADATA_BYTES,
            check=lambda data: check_metadata(name, data),
        )

    async def fetch_commitmeta(self, commit: Checksum) -> bytes | None:
        """Return a commit's detached metadata, None if the origin has none."""
        name = ObjectName(commit, ObjectType.COMMITMETA)
        return await self._find(
            f"objects/{name.path()}", kind="commitmeta", max_bytes=MAX_COMMITMETA_BYTES
        )

    async def is_tombstoned(self, commit: Checksum) -> bool:
        """Tell whether the origin says that it deleted a commit on purpose."""
        name = ObjectName(commit, ObjectType.TOMBSTONE_COMMIT)
        path = f"objects/{name.path()}"
        found = await self._find(path, kind="commit", max_bytes=MAX_COMMITMETA_BYTES)
        return found is not None

    async def _get(
        self,
        path: str,
        *,
        kind: str,
        max_bytes: int,
        check: Callable[[bytes], object] | None = None,
    ) -> bytes:
        return await self._source.get(
            self._source.metadata, path, kind=kind, max_bytes=max_bytes, check=check
        )

    async def _find(self, path: str, *, kind: str, max_bytes: int) -> bytes | None:
        try:
            return await self._get(path, kind=kind, max_bytes=max_bytes)
        except OriginNotFoundError:
            return None


def _parse_ref(data: bytes) -> Checksum:
    """Return the commit in a ref's file; TreeHub's has no line break at its end."""
    return parse_checksum(data.decode("ascii", "replace").strip())
