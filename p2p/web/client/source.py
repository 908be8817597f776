"""One origin as everything that fetches from it shares it: mirrors, access, account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from p2p.errors import Error, FormatError, IntegrityError, TransportError
from p2p.web.client.authorization import Authorization
from p2p.web.client.credentials import Credentials
from p2p.web.client.fetch import Fetcher
from p2p.web.client.mirrors import LIST_PREFIX, PENALTY_SECONDS, Mirror, Mirrors
from p2p.web.client.request import Access, Headers, Request, Response
from p2p.web.client.retry import Course, Retry
from p2p.web.url import Server, server_of, show, split_user


@dataclass(slots=True)
class Counters:
    """What an origin was asked and has sent; bodies as transferred, by kind of file."""

    requests: int = 0
    retries: int = 0
    bytes: Counter[str] = field(default_factory=Counter)


class Source:
    """Fetches single files of an origin, with everything that takes.

    Attributes:
        metadata: where summary, config, refs and signatures are (`url`).
        content: where objects are (`contenturl`, else `url`).

    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        url: str,
        content_url: str | None,
        access: Access,
        credentials: Credentials,
        headers: Headers,
        retry: Retry,
    ) -> None:
        self.fetcher = fetcher
        self.retry = retry
        self.counters = Counters()
        self._access = access
        self._identified = access
        if credentials.client_pem is not None:
            self._identified = replace(access, client_pem=credentials.client_pem)
        self._headers = headers
        self._own = _servers(url, credentials.url)
        self.authorization = Authorization(
            fetcher, credentials, access=access, retry=retry
        )
        self.metadata = self._mirrors(url)
        self.content = self.metadata
        if content_url is not None and content_url != url:
            self.content = self._mirrors(content_url)

    def _mirrors(self, spec: str) -> Mirrors:
        return Mirrors(spec, make=self._mirror, get=self._get_from)

    def _mirror(self, url: str) -> Mirror:
        """Return the mirror at a URL; only the origin's own server gets credentials."""
        bare, user = split_user(url)
        own = server_of(bare) in self._own
        private = self._headers if own else ()
        if user is not None:
            private = (*private, ("Authorization", user))
        return Mirror(
            bare,
            access=self._identified if own else self._access,
            credentials=own and user is None,
            private=private,
        )

    def request(
        self, mirror: Mirror, path: str, *, authorization: Headers, max_bytes: int
    ) -> Request:
        """Return the request for a file at a mirror."""
        private = mirror.private
        if mirror.credentials and authorization:
            private += authorization
        return Request(
            url=f"{mirror.url}/{path}" if path else mirror.url,
            max_bytes=max_bytes,
            private=private,
            access=mirror.access,
            want_headers=False,
        )

    def course(self, mirrors: Mirrors, *, first: Mirror | None = None) -> Course:
        """Return what is to be tried for one file, whose first mirror may be given."""
        return Course(
            lambda: mirrors.order(trio.current_time()), self.retry, first=first
        )

    def note_failure(self, mirror: Mirror, path: str, error: Error) -> None:
        """Have a mirror that cannot be reached asked after the others for a while.

        An error about a file's bytes is told which file's they are.
        """
        if isinstance(error, TransportError):
            mirror.bad_until = trio.current_time() + PENALTY_SECONDS
        where = show(f"{mirror.url}/{path}")
        if isinstance(error, FormatError | IntegrityError) and where not in str(error):
            error.args = (f"{where}: {error}",)

    async def get(
        self,
        mirrors: Mirrors,
        path: str,
        *,
        kind: str,
        max_bytes: int,
        check: Callable[[bytes], object] | None = None,
    ) -> bytes:
        """Return a file.

        Args:
            mirrors: where it may be.
            path: below the repository's URL, fit for a URL.
            kind: what its bytes are counted as.
            max_bytes: longer ones are refused.
            check: raises an Error if the bytes are not what they should be; another
                mirror or another try may do better then.

        Raises:
            OriginNotFoundError: no mirror has it.
            CredentialsError: the origin does not accept ours, or wants some.
            OriginError: it answers with another error.
            TransportError: it cannot be reached, in all tries.
            LimitError: the file is longer than `max_bytes`.

        """
        await mirrors.open()
        course = self.course(mirrors)
        return await self._follow(
            course, path, kind=kind, max_bytes=max_bytes, check=check
        )

    async def _get_from(self, mirror: Mirror, path: str, max_bytes: int) -> bytes:
        course = Course(lambda: (mirror,), self.retry)
        return await self._follow(
            course, path, kind="config", max_bytes=max_bytes, check=None
        )

    async def _follow(
        self,
        course: Course,
        path: str,
        *,
        kind: str,
        max_bytes: int,
        check: Callable[[bytes], object] | None,
    ) -> bytes:
        while True:
            mirror, retry_after = course.mirror, None
            try:
                response = await self._ask(mirror, path, kind=kind, max_bytes=max_bytes)
                retry_after = response.retry_after
                body = response.check().body
                if check is not None:
                    check(body)
            except Error as error:
                self.note_failure(mirror, path, error)
                delay: float | None = 0
                if not course.next_mirror(error):
                    delay = course.next_try(retry_after)
                if delay is None:
                    raise course.final_error() from None
                self.counters.retries += 1
                await trio.sleep(delay)
            else:
                return body

    async def _ask(
        self, mirror: Mirror, path: str, *, kind: str, max_bytes: int
    ) -> Response:
        if not mirror.credentials:
            return await self._fetch(mirror, path, (), kind=kind, max_bytes=max_bytes)
        headers = await self.authorization.renew()
        response = await self._fetch(
            mirror, path, headers, kind=kind, max_bytes=max_bytes
        )
        if response.status == 401 and self.authorization.refused(headers):
            headers = await self.authorization.renew()
            response = await self._fetch(
                mirror, path, headers, kind=kind, max_bytes=max_bytes
            )
        return response

    async def _fetch(
        self,
        mirror: Mirror,
        path: str,
        authorization: Headers,
        *,
        kind: str,
        max_bytes: int,
    ) -> Response:
        self.counters.requests += 1
        response = await self.fetcher.fetch(
            self.request(mirror, path, authorization=authorization, max_bytes=max_bytes)
        )
        self.counters.bytes[kind] += response.received
        return response


def _servers(*urls: str | None) -> frozenset[Server]:
    """Return the servers that the origin's credentials are meant for."""
    named = [url.removeprefix(LIST_PREFIX) for url in urls if url]
    return frozenset(server_of(u) for u in named if not u.startswith("file://"))
