"""One transfer as the fetching thread sees it: callbacks of libcurl, redirects.

Nothing here knows pycurl: the numbers that callbacks return are those of `curl.h`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol

from p2p.errors import ConfigError, LimitError, OriginError
from p2p.web.client.intake import PIECE_BYTES, Codec, Intake
from p2p.web.client.lane import Chunk, Lane
from p2p.web.client.outgoing import Outgoing
from p2p.web.client.request import (
    Access,
    Headers,
    Request,
    Response,
    anonymous,
    parse_retry_after,
)
from p2p.web.url import server_of, show

MAX_REDIRECTS = 20
MAX_HEADER_BYTES = 64 << 10
"""Of all headers of an answer; nginx sends at most 32 KiB of them by default."""
_MAX_RAW_BYTES = 1 << 19
"""Taken from libcurl before it is looked at."""
_TEXT_BYTES = 4096
"""Kept of the body that comes with an error."""
_MAX_TEXT_BYTES = 64 << 10
"""Longer bodies of errors are cut off, at the price of the connection."""

_PAUSE_WRITE = 0x10000001  # CURL_WRITEFUNC_PAUSE
_ABORT_HEADER = -1  # any number but the length
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Handle(Protocol):
    """What a transfer asks libcurl while it runs."""

    def status(self) -> int:
        """Return the HTTP status."""
        ...

    def last_modified(self) -> int | None:
        """Return when the file changed, in seconds since 1970, if the server says."""
        ...

    def length(self) -> int | None:
        """Return the body's length in bytes, if the server says."""
        ...

    def redirect_url(self) -> str | None:
        """Return where the answer redirects to."""
        ...

    def retry_after(self) -> float | None:
        """Return for how many seconds the server asks to be left alone."""
        ...


class Transfer:
    """A request on its way.

    Attributes:
        request: what was asked.
        asked: the URL that was asked first, which the request may leave open.
        tag: the consumer's own; not looked at.
        cancelled: set by the consumer, which then sees no further event.
        codec: how the body is decoded.
        intake: takes in a body that is not short.
        whole: a short body, decoded.
        offset: bytes of the body that an earlier transfer has brought.
        received: bytes of the body that this one has brought, before decoding.
        last_modified: the file's time as the server gives it, None if it does not.
        length: bytes of the body by its Content-Length, None if it has none. Both are
            known only of bodies that come in more than one piece.
        raw: bytes of the body that nobody has looked at.
        paused: libcurl was told to hold the rest back.
        held: paused because of the rate that all transfers share.
        stalled: bytes wait for the consumer to catch up.
        outcome: libcurl's code and message once it has ended.
        error: what a callback had to say that libcurl cannot carry.

    """

    # Defaults live in the class: thousands of transfers never change them.
    cancelled = False
    last_modified: int | None = None
    length: int | None = None
    handle: Handle | None = None
    status = 0
    paused = False
    held = False
    stalled = False
    outcome: tuple[int, str] | None = None
    error: Exception | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    outgoing: Outgoing | None = None
    received = 0
    offset = 0
    intake: Intake | None = None
    whole: bytes | None = None
    _hops = 0
    _raw_bytes = 0
    _header_bytes = 0
    _text = b""
    _text_bytes = 0

    def __init__(
        self,
        request: Request,
        url: str,
        lane: Lane,
        codec: Codec | None,
        tag: object,
    ) -> None:
        """Use `new_transfer` to get one."""
        self.request = request
        self.asked = url
        self.lane = lane
        self.codec = codec
        self.tag = tag
        self.url = url
        self.server = server_of(url)
        self.private: Headers = request.private
        self.access: Access = request.access
        self.raw: deque[bytes] = deque()

    def _rewind(self) -> None:
        """Forget what one server said, before another is asked."""
        self.status = 0
        self.outcome = None
        self.paused = False
        self.headers = {}
        self._header_bytes = 0
        self._text = b""
        self._text_bytes = 0

    @property
    def redirected(self) -> bool:
        """Tell whether another URL than the request's answered."""
        return self._hops > 0

    @property
    def succeeds(self) -> bool:
        """Tell whether the status is one of success."""
        return 200 <= self.status < 300

    # -- the body that comes ------------------------------------------------------

    def write(self, data: bytes) -> int | None:
        """CURLOPT_WRITEFUNCTION; None means that all was taken.

        pycurl answers no question in here, not even for the status: `digest` looks
        at the bytes afterwards.
        """
        engine = self.lane.engine
        if self._raw_bytes >= _MAX_RAW_BYTES or self.stalled:
            engine.throttle.forget(self)
            self.paused = True
            return _PAUSE_WRITE
        if not engine.throttle.admits(self, len(data)):
            self.paused = True
            return _PAUSE_WRITE
        self.raw.append(data)
        self._raw_bytes += len(data)
        return None

    @property
    def waits(self) -> bool:
        """Tell whether enough has come to be worth a look before the end."""
        return self._raw_bytes > PIECE_BYTES

    def digest(self) -> bool:
        """Decode and hand on what has come; tell if that is the end of the matter.

        Raises whatever is wrong with the body. Where the consumer has no room,
        `stalled` becomes true and the rest waits for another call.
        """
        if not self.status:
            self.status = self._handle().status()
        if not self.succeeds:
            return self._keep_text()
        if self.intake is None:
            if self._digest_whole():
                return False
            self.intake = Intake(self.codec.decoder() if self.codec else None)
        self._stream(self.intake)
        return False

    def _digest_whole(self) -> bool:
        """Decode a short body at once if all of it is here; tell if that was it."""
        if self.outcome is None or self._raw_bytes > PIECE_BYTES:
            return False
        if self.outcome[0]:
            self._take_raw()  # the start of a short body is of no use
            return True
        if self._raw_bytes > self.request.max_bytes:
            raise self.too_long()
        data = self.raw[0] if len(self.raw) == 1 else b"".join(self.raw)
        self.whole = self.codec.whole(data) if self.codec else data
        if self.whole is None:
            return False
        self._take_raw()
        return True

    def _take_raw(self) -> None:
        self.received += self._raw_bytes
        self.raw.clear()
        self._raw_bytes = 0

    def _stream(self, intake: Intake) -> None:
        self.stalled = intake.busy and not intake.pump(self._put)
        while self.raw and not self.stalled:
            data = self.raw.popleft()
            self._raw_bytes -= len(data)
            self.received += len(data)
            intake.take(data)
            if intake.received > self.request.max_bytes:
                raise self.too_long()
            if self.last_modified is None and self.length is None:
                self.last_modified = self._handle().last_modified()
                self.length = self._handle().length()
            self.stalled = not intake.pump(self._put)

    def _handle(self) -> Handle:
        if self.handle is None:
            raise AssertionError(
                "a transfer that does not run was asked for its answer"
            )
        return self.handle

    def _keep_text(self) -> bool:
        while self.raw:
            data = self.raw.popleft()
            self._raw_bytes -= len(data)
            self._text += data[: _TEXT_BYTES - len(self._text)]
            self._text_bytes += len(data)
        return self._text_bytes > _MAX_TEXT_BYTES

    def too_long(self) -> LimitError:
        """Return the error for a body longer than the request allows."""
        return LimitError(
            f"{show(self.url)}: longer than {self.request.max_bytes} bytes"
        )

    def _put(self, data: bytes) -> bool:
        lane = self.lane
        lane.delivered += len(data)
        lane.engine.emit(lane, Chunk(self, data))
        return not lane.full

    # -- headers --------------------------------------------------------------------

    def header(self, line: bytes) -> int | None:
        """CURLOPT_HEADERFUNCTION: one line, also those of earlier answers."""
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.error = LimitError(
                f"{show(self.url)}: more than {MAX_HEADER_BYTES} bytes of headers"
            )
            return _ABORT_HEADER
        if line.startswith(b"HTTP/"):
            self.headers = {}
            return None
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            name = name.strip().lower()
            value = value.strip()
            before = self.headers.get(name)
            value = value if before is None else f"{before}, {value}"
            self.headers = {**self.headers, name: value}
        return None

    # -- the end ----------------------------------------------------------------------

    def redirect(self) -> bool:
        """Turn to where the answer redirects to; False if it does not.

        Raises:
            OriginError: too many redirects, or one from https to http.

        """
        if self.status not in _REDIRECTS or self.request.method not in ("GET", "HEAD"):
            return False
        target = self._handle().redirect_url()
        if target is None:
            return False
        self._check_redirect(target)
        self._hops += 1
        self.url = target
        self.server = server_of(target)
        self._rewind()
        return True

    def _check_redirect(self, target: str) -> None:
        asked = show(self.asked)
        if self._hops >= MAX_REDIRECTS:
            raise OriginError(
                f"{asked}: redirected more than {MAX_REDIRECTS} times",
                status=self.status,
                hint="The server redirects in a circle; check the remote's URL.",
            )
        try:
            server = server_of(target)
        except ConfigError as error:
            raise OriginError(
                f"{asked}: redirected to {error}", status=self.status
            ) from None
        if self.server.scheme == "https" and server.scheme == "http":
            raise OriginError(
                f"{asked}: redirected to {show(target)}, which is not encrypted",
                status=self.status,
                hint="A redirect from https to http is never followed.",
            )
        if server != server_of(self.asked):
            self.private = ()
            self.access = anonymous(self.access)

    def result(self) -> Response:
        """Return the answer that libcurl has brought in full.

        Raises what the decoder finds wrong with the body as a whole.
        """
        ok = self.succeeds
        body = self._body() if ok else self._text
        self.lane.delivered += len(body)
        return Response(
            self.status,
            self.headers,
            body,
            self.url,
            self.received,
            None if ok else self._retry_after(),
            not ok and self._trusted(),
        )

    def _body(self) -> bytes:
        if self.whole is not None:
            return self.whole
        return self.intake.finish() if self.intake is not None else b""

    def _retry_after(self) -> float | None:
        if self.headers:
            return parse_retry_after(self.headers)
        return self._handle().retry_after()

    def _trusted(self) -> bool:
        if self.access.has_identity:
            return True
        return any(name.lower() == "authorization" for name, _ in self.private)


def new_transfer(
    request: Request,
    lane: Lane,
    *,
    url: str | None = None,
    codec: Codec | None = None,
    resume: Transfer | None = None,
    tag: object = None,
) -> Transfer:
    """Return a transfer, which goes on where `resume` stopped if that is given.

    Raises ConfigError for what is no URL of http or https, or no header.
    """
    if url is None:
        url = request.url
    _check_text("URL", url)
    if request.headers or request.private:
        _check_headers(request.headers)
        _check_headers(request.private)
    transfer = Transfer(request, url, lane, codec, tag)
    if resume is not None and resume.intake is not None:
        transfer.codec = resume.codec
        transfer.intake = resume.intake
        transfer.offset = resume.intake.received
    if request.body is not None:
        transfer.outgoing = Outgoing(request.body)
    return transfer


@lru_cache(maxsize=256)
def _check_headers(headers: Headers) -> None:
    for name, value in headers:
        _check_text(f"header {name[:80]!r}", name.replace(":", " ") + value.strip())
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"header {name[:80]!r}", "is not a header's name")


def _check_text(what: str, text: str) -> None:
    # A line break would end the header and begin another.
    if not text.isascii() or not text.isprintable():
        raise ConfigError(what, "holds characters that HTTP does not allow")
