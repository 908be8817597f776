"""Where an origin's files are: one URL, or a list of mirrors.

`mirrorlist=URL` as in libostree: lines with http or https URLs, of which the first
ones that do not answer for `config` are passed over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from p2p.errors import ConfigError, Error, OriginError
from p2p.web.client.request import Access, Headers
from p2p.web.url import server_of, show

MAX_LIST_BYTES = 1 << 20
_MAX_MIRRORS = 100
LIST_PREFIX = "mirrorlist="
_FILE = "file://"
PENALTY_SECONDS = 60.0
"""A mirror whose connections fail is asked after the others for so long."""


@dataclass(slots=True, eq=False)
class Mirror:
    """A repository's URL without a slash at its end, and how it is reached.

    `private` are credentials and further headers for its server; `bad_until` is in
    the seconds of the clock given to `Mirrors`.
    """

    url: str
    access: Access
    credentials: bool
    private: Headers = field(default=(), repr=False)
    bad_until: float = 0.0


class Mirrors:
    """The places that have the same files."""

    def __init__(
        self,
        spec: str,
        *,
        make: Callable[[str], Mirror],
        get: Callable[[Mirror, str, int], Awaitable[bytes]],
    ) -> None:
        """Take an http(s) URL, or `mirrorlist=` with one or with a file:// URL.

        Args:
            spec: as in a remote's `url` or `contenturl`.
            make: returns the mirror for a URL.
            get: returns a file below a mirror's URL (the mirror's own URL if the
                path is empty), of so many bytes at most.

        """
        self._spec = spec
        self._make = make
        self._get = get
        self._lock = trio.Lock()
        self._mirrors: list[Mirror] = []
        if not spec.startswith(LIST_PREFIX):
            server_of(spec)
            self._mirrors = [make(spec.rstrip("/"))]

    async def open(self) -> None:
        """Find out the mirrors, if that was not done.

        Raises:
            ConfigError: the list cannot be read or names none.
            OriginError: none of them works.
            TransportError: the list's server or the last mirror cannot be reached.

        """
        if self._mirrors:
            return
        async with self._lock:
            if not self._mirrors:
                self._mirrors = await self._probe(await self._read())

    async def _read(self) -> list[Mirror]:
        where = self._spec.removeprefix(LIST_PREFIX)
        if where.startswith(_FILE):
            data = _read_file(where.removeprefix(_FILE))
        else:
            server_of(where)
            data = await self._get(self._make(where), "", MAX_LIST_BYTES)
        lines = [line.strip() for line in data.decode("utf-8", "replace").split("\n")]
        urls = [line for line in lines if line.startswith(("http://", "https://"))]
        if not urls:
            raise ConfigError(f"mirror list {show(where)}", "names no mirror")
        return [self._make(url.rstrip("/")) for url in urls[:_MAX_MIRRORS]]

    async def _probe(self, mirrors: list[Mirror]) -> list[Mirror]:
        failure: Error | None = None
        for index, mirror in enumerate(mirrors):
            try:
                await self._get(mirror, "config", MAX_LIST_BYTES)
            except Error as error:
                failure = error
            else:
                return mirrors[index:]
        where = show(self._spec.removeprefix(LIST_PREFIX))
        raise OriginError(
            f"no mirror of {where} works; the last one: {failure}"
        ) from failure

    def order(self, now: float) -> Sequence[Mirror]:
        """Return the mirrors in the order to ask them; at least one."""
        if len(self._mirrors) == 1:
            return self._mirrors
        return sorted(self._mirrors, key=lambda mirror: mirror.bad_until > now)

    @property
    def single(self) -> bool:
        """Tell whether there is nothing to fall back to."""
        return len(self._mirrors) == 1


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"mirror list {path}", error.strerror or str(error)) from None
    if len(data) > MAX_LIST_BYTES:
        raise ConfigError(f"mirror list {path}", f"longer than {MAX_LIST_BYTES} bytes")
    return data
