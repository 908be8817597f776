"""The requests of a push to TreeHub, each tried until it is answered for good.

How many run at once is found by trial, as in TCP: one more for each round of success,
half as many when the server is overloaded or the link breaks.
"""

from __future__ import annotations

import json
from dataclasses import replace

import trio

from p2p.errors import ConfigError, CredentialsError, Error, OriginError, TransportError
from p2p.ostree.content import MAX_CONTENT_BYTES
from p2p.ostree.objects import Checksum, ObjectName, ObjectType, parse_checksum
from p2p.ostree.refs import RefPath
from p2p.trust.sign import MAX_COMMITMETA_BYTES
from p2p.web.client.authorization import Authorization
from p2p.web.client.credentials import Credentials
from p2p.web.client.engine import Limits
from p2p.web.client.fetch import Fetcher
from p2p.web.client.request import (
    DEFAULT_ACCESS,
    Access,
    Headers,
    Request,
    Response,
    Upload,
)
from p2p.web.client.retry import MAX_RETRY_AFTER_SECONDS, Retry, is_transient
from p2p.web.treehub.packing import Package
from p2p.web.url import server_of, show, split_user

DEFAULT_JOBS = 30
"""garage-push's `--jobs`."""
PUSH_LIMITS = Limits(connections=DEFAULT_JOBS, host_connections=DEFAULT_JOBS)
"""For the Fetcher of a push."""
FORCE = ("x-ats-ostree-force", "true")
_MAX_ANSWER_BYTES = 64 << 10
_OCTETS = ("Content-Type", "application/octet-stream")
_TEXT = ("Content-Type", "text/plain")
_FULL = 507
_START_JOBS = 4


class RefRefusedError(OriginError):
    """The origin did not let a ref be set (412); `code` is its word for why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, status=412)
        self.code = code


class TreeHubClient:
    """One TreeHub, or what speaks like one.

    Every method raises CredentialsError, OriginError or TransportError after as many
    tries as make sense.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        url: str,
        *,
        credentials: Credentials | None = None,
        headers: Headers = (),
        access: Access = DEFAULT_ACCESS,
        retry: Retry | None = None,
        jobs: int = DEFAULT_JOBS,
    ) -> None:
        """Use the interface at a URL such as `https://host/api/v3`.

        Args:
            fetcher: what transfers run on; `PUSH_LIMITS` suit it.
            url: may hold `user:password@`.
            credentials: sent only to this URL's server.
            headers: sent with every request, `x-ats-namespace` for one.
            access: how the server is reached.
            retry: how often and how fast to try again.
            jobs: requests at once, at most.

        Raises:
            ConfigError: the URL is none, or no request is to be made at all.

        """
        server_of(url)
        if jobs < 1:
            raise ConfigError("jobs", f"{jobs} requests at once get nothing done")
        bare, user = split_user(url.rstrip("/"))
        self.url = bare
        self.jobs = jobs
        credentials = credentials or Credentials()
        self._fetcher = fetcher
        self._retry = retry or Retry()
        self._access = access
        if credentials.client_pem is not None:
            self._access = replace(access, client_pem=credentials.client_pem)
        self._authorization = Authorization(
            fetcher, credentials, access=access, retry=self._retry
        )
        self._private = headers
        if user is not None:
            self._private += (("Authorization", user),)
        self._window = float(min(_START_JOBS, jobs))
        self._slots = trio.CapacityLimiter(int(self._window))
        self._halved_at = -1.0

    def __repr__(self) -> str:
        return f"<TreeHubClient {show(self.url)} {int(self._window)} jobs>"

    # -- what is asked -----------------------------------------------------------

    async def has(self, name: ObjectName) -> bool:
        """Tell whether the origin has an object."""
        # The length of what is only named counts for a transfer's bound.
        response = await self._ask(
            "HEAD", _path(name), good=(200, 404), max_bytes=MAX_CONTENT_BYTES
        )
        return response.status == 200

    async def upload(self, name: ObjectName, package: Package) -> bool:
        """Send an object; tell whether it was new to the origin."""
        response = await self._ask(
            "POST",
            _path(name),
            body=package.body,
            headers=(_OCTETS,),
            good=(200, 201, 204, 409),
        )
        return response.status != 409

    async def get_detached(self, commit: Checksum) -> bytes | None:
        """Return a commit's detached metadata as the origin has it."""
        name = ObjectName(commit, ObjectType.COMMITMETA)
        response = await self._ask(
            "GET", _path(name), good=(200, 404), max_bytes=MAX_COMMITMETA_BYTES
        )
        return response.body if response.status == 200 else None

    async def get_ref(self, ref: RefPath) -> Checksum | None:
        """Return the commit a ref names at the origin; None if there is no such ref."""
        response = await self._ask("GET", f"refs/{ref}", good=(200, 404))
        if response.status == 404:
            return None
        text = response.body.decode("ascii", "replace").strip()
        try:
            return parse_checksum(text)
        except Error as error:
            raise OriginError(
                f"{show(response.url)}: {error}",
                hint="Check the URL; what answers there is no TreeHub.",
            ) from None

    async def set_ref(self, ref: RefPath, commit: Checksum, *, force: bool) -> None:
        """Let a ref name a commit; RefRefusedError if the origin does not want that."""
        response = await self._ask(
            "POST",
            f"refs/{ref}",
            body=commit.encode(),
            headers=(_TEXT, FORCE) if force else (_TEXT,),
            good=(200, 201, 204, 412),
        )
        if response.status == 412:
            raise RefRefusedError(str(response.error()), _code(response.body))

    # -- how ---------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        good: tuple[int, ...],
        body: bytes | Upload | None = None,
        headers: Headers = (),
        max_bytes: int = _MAX_ANSWER_BYTES,
    ) -> Response:
        request = Request(
            url=f"{self.url}/{path}",
            method=method,
            max_bytes=max_bytes,
            headers=headers,
            body=body,
            access=self._access,
            want_headers=method == "POST",
        )
        tried = 0
        while True:
            began = trio.current_time()
            wait: float | None = None
            try:
                response = await self._ask_authorized(request)
                if response.status in good:
                    self._grow()
                    return response
                error: Error = response.error()
                wait = response.retry_after
            except TransportError as failure:
                error = failure
            tried += 1
            if not _is_worth_retrying(error) or tried >= self._retry.tries:
                raise error
            self._halve(began)
            if wait is None:
                wait = self._retry.delay(tried)
            await trio.sleep(min(wait, MAX_RETRY_AFTER_SECONDS))

    async def _ask_authorized(self, request: Request) -> Response:
        """Return the answer; a token that has expired is renewed once."""
        async with self._slots:
            authorization = await self._authorization.renew()
            response = await self._fetch(request, authorization)
            refused = response.status == 401
            if refused and self._authorization.refused(authorization):
                authorization = await self._authorization.renew()
                response = await self._fetch(request, authorization)
            return response

    async def _fetch(self, request: Request, authorization: Headers) -> Response:
        private = self._private + authorization
        return await self._fetcher.fetch(replace(request, private=private))

    def _grow(self) -> None:
        self._window = min(self._window + 1 / self._window, self.jobs)
        if int(self._window) != self._slots.total_tokens:
            self._slots.total_tokens = int(self._window)

    def _halve(self, began: float) -> None:
        """Do half as much at once, but only once for what was on its way together."""
        if began > self._halved_at:
            self._halved_at = trio.current_time()
            self._window = max(self._window / 2, 1.0)
            self._slots.total_tokens = int(self._window)


def _path(name: ObjectName) -> str:
    return f"objects/{name.path(archive=True)}"


def _is_worth_retrying(error: Error) -> bool:
    if isinstance(error, CredentialsError):
        return False
    full = isinstance(error, OriginError) and error.status == _FULL
    return is_transient(error) and not full


def _code(body: bytes) -> str:
    """Return the word for programs in TreeHub's error bodies; "" if there is none."""
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
