"""The `Authorization` header of an origin's requests; fetches and renews its token."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import trio

from p2p.errors import CredentialsError, Error, OriginError
from p2p.web.client.credentials import Credentials
from p2p.web.client.fetch import Fetcher
from p2p.web.client.request import Access, Headers, Request, Response
from p2p.web.client.retry import Retry, is_transient
from p2p.web.url import basic, show

_MAX_TOKEN_BYTES = 64 << 10
_MARGIN_SECONDS = 30.0
"""A token is renewed this long before it expires, for requests that wait."""


class Authorization:
    """Where the credentials for one origin become headers."""

    def __init__(
        self,
        fetcher: Fetcher,
        credentials: Credentials,
        *,
        access: Access,
        retry: Retry,
    ) -> None:
        """`access` is how the token's server is reached."""
        self._fetcher = fetcher
        self._retry = retry
        self._oauth2 = credentials.oauth2
        self._access = access
        self._lock = trio.Lock()
        self._expires = float("inf")
        self._current: Headers | None = ()
        if credentials.basic is not None:
            user = credentials.basic
            self._current = _header(basic(user.user, user.password))
        elif self._oauth2 is not None:
            self._current = None

    def current(self) -> Headers | None:
        """Return the headers to send, None if `renew` must be called before."""
        if self._current and trio.current_time() >= self._expires:
            self._current = None
        return self._current

    def refused(self, headers: Headers) -> bool:
        """Take note that these headers got a 401; tell if others may do better."""
        if self._oauth2 is None:
            return False
        if self._current == headers:
            self._current = None
        return True

    async def renew(self) -> Headers:
        """Return the headers to send, fetching a token if there is none that is good.

        Raises:
            CredentialsError: the token's server does not accept the client.
            OriginError: its answer holds no token.
            TransportError: it cannot be reached.

        """
        async with self._lock:
            tried = 0
            while (headers := self.current()) is None:
                try:
                    await self._fetch_token()
                except Error as error:
                    tried += 1
                    if not is_transient(error) or tried >= self._retry.tries:
                        raise
                    await trio.sleep(self._retry.delay(tried))
            return headers

    async def _fetch_token(self) -> None:
        client = self._oauth2
        if client is None:
            raise AssertionError("only OAuth2 has headers that are not known at once")
        form = {"grant_type": "client_credentials"}
        if client.scope:
            form["scope"] = client.scope
        response = await self._fetcher.fetch(
            Request(
                url=client.token_url,
                method="POST",
                headers=(
                    ("Content-Type", "application/x-www-form-urlencoded"),
                    ("Accept", "application/json"),
                ),
                private=_header(basic(client.client_id, client.client_secret)),
                body=urlencode(form).encode(),
                max_bytes=_MAX_TOKEN_BYTES,
                access=self._access,
            )
        )
        if response.status == 400:  # RFC 6749, 5.2: among others "invalid_client"
            raise CredentialsError(str(response.error()), status=400)
        token, seconds = _parse_token(response.check())
        self._expires = float("inf")
        if seconds is not None:
            # A short-lived token is used for half of its life at least.
            margin = min(_MARGIN_SECONDS, seconds / 2)
            self._expires = trio.current_time() + seconds - margin
        self._current = _header(f"Bearer {token}")


def _header(value: str) -> Headers:
    return (("Authorization", value),)


def _parse_token(response: Response) -> tuple[str, float | None]:
    """Return the token and for how many seconds it is good, if that is said."""
    try:
        fields = json.loads(response.body)
        token = fields["access_token"]
        seconds = fields.get("expires_in")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ValueError
        return token, None if seconds is None else float(seconds)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise OriginError(
            f"{show(response.url)}: the answer holds no access token",
            hint="Check oauth2.server in treehub.json.",
        ) from None
