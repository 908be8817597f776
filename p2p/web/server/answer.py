"""Writes a `Response` onto a link: status line, headers, framing and the body."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import AsyncGenerator, Callable
from functools import lru_cache

import trio

from p2p.web.server.exchange import FileBody, Request, Response, reason
from p2p.web.server.files import http_date
from p2p.web.server.link import Link

CHUNK_BYTES = 1 << 18
"""A file's bytes on their way out: what one answer holds in memory."""

_NO_BODY = frozenset({204, 304})
# preadv says so where it cannot tell whether it would block: tmpfs, some networks.
_CANNOT_TELL = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Answer:
    """One response on its way; `sent_bytes` counts it, head included."""

    def __init__(
        self, link: Link, request: Request, response: Response, *, last: bool
    ) -> None:
        """`last` says that the connection ends with this answer."""
        self.sent_bytes = 0
        self._link = link
        self._response = response
        self._last = last
        self._head_only = request.method == "HEAD"
        self._chunked = request.version != "1.0"

    async def send(self, waiting: Callable[[bool], None]) -> None:
        """Send everything; `waiting` is told when a wait for the client begins or ends.

        Such a wait ends with whatever the client takes, however little; a wait for
        one's turn is none.

        Raises what the link raises, and BrokenResourceError when a file has become
        shorter than was announced. A file is closed in any case.
        """
        self._waiting = waiting
        body = self._response.body
        if isinstance(body, bytes):
            await self._put(self.whole())
        elif isinstance(body, FileBody):
            try:
                await self._send_file(body)
            finally:
                body.close()
        else:
            async with contextlib.aclosing(body):
                await self._send_stream(body)

    def whole(self) -> bytes:
        """Return head and body in one piece; the body must be in memory."""
        response, body = self._response, self._response.body
        if not isinstance(body, bytes):
            raise TypeError("a file or stream is not in memory")
        if response.status in _NO_BODY:
            return self._head("")
        length = len(body) if response.length is None else response.length
        head = self._head(f"Content-Length: {length}\r\n")
        return head if self._head_only else head + body

    async def _send_file(self, body: FileBody) -> None:
        head = self._head(f"Content-Length: {body.length}\r\n")
        at, end = body.offset, body.offset + body.length
        if self._head_only or at == end:
            await self._put(head)
            return
        while at < end:
            piece = await read_file(body.fd, at, min(CHUNK_BYTES, end - at))
            if not piece:
                raise trio.BrokenResourceError("the file became shorter")
            at += len(piece)
            await self._put(head + piece)
            head = b""

    async def _send_stream(self, body: AsyncGenerator[bytes, None]) -> None:
        framing = "Transfer-Encoding: chunked\r\n" if self._chunked else ""
        await self._put(self._head(framing))
        if self._head_only:
            return
        async for piece in body:
            if piece and self._chunked:
                await self._put(b"%x\r\n%b\r\n" % (len(piece), piece))
            elif piece:
                await self._put(piece)
        if self._chunked:
            await self._put(b"0\r\n\r\n")

    async def _put(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        view = memoryview(data)[self._link.send_now(data) :]
        while view:
            size = await self._link.turn(len(view))
            self._waiting(True)
            view = view[await self._link.send_some(view[:size]) :]
            self._waiting(False)

    def _head(self, framing: str) -> bytes:
        headers = self._response.headers
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if not lines.count("\n") == lines.count("\r") == len(headers):
            raise ValueError(f"a header's value holds a line break: {headers!r}")
        status = _status_line(self._response.status)
        date = _date_line(int(time.time()))
        end = "Connection: close\r\n\r\n" if self._last else "\r\n"
        return f"{status}{date}{lines}{framing}{end}".encode("latin-1")


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {reason(status)}\r\n"


@lru_cache(maxsize=2)
def _date_line(now: int) -> str:
    return f"Date: {http_date(now)}\r\n"


async def read_file(fd: int, offset: int, size: int) -> bytes:
    """Return up to `size` bytes; a thread reads them if the disk must turn first."""
    buffer = bytearray(size)
    try:
        count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return await trio.to_thread.run_sync(os.pread, fd, size, offset)
    except OSError as error:
        if error.errno not in _CANNOT_TELL:
            raise
        return os.pread(fd, size, offset)
    return bytes(buffer[:count]) if count < size else bytes(buffer)
