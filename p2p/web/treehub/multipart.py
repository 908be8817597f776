"""One field out of a `multipart/form-data` body, as it streams by (RFC 7578)."""

from __future__ import annotations

import email.message
from collections.abc import AsyncIterator

from p2p.web.server.exchange import RefusedError

_MAX_HEAD_BYTES = 16 << 10
_MAX_BOUNDARY = 70  # RFC 2046 §5.1.1


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary of a multipart body; None for any other content type."""
    if not content_type.lower().startswith("multipart/"):
        return None
    message = email.message.Message()
    message["Content-Type"] = content_type
    if message.get_content_type() != "multipart/form-data":
        return None
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise _malformed("no boundary")
    return boundary.encode("latin-1", "replace")


class MultipartField:
    """The content of the first part with a field name, as an iterator of pieces.

    The parts before it are skipped, those behind it are not looked at. RefusedError
    (400) if there is no such part or the body ends within it.
    """

    def __init__(self, body: AsyncIterator[bytes], boundary: bytes, field: str) -> None:
        """Read from a body that has not been read yet."""
        self._body = body
        self._mark = b"\r\n--" + boundary
        self._field = field
        # The first boundary has no line before it.
        self._buffer = b"\r\n"
        self._found = False
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the content piece by piece."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece of the content."""
        if not self._found:
            await self._find()
        while not self._ended:
            if piece := await self._next_piece():
                return piece
        raise StopAsyncIteration

    async def _find(self) -> None:
        """Go to where the field's content begins."""
        name: str | None = None
        while name != self._field:
            while not self._ended:
                await self._next_piece()
            name = await self._read_name()
            self._ended = False
        self._found = True

    async def _next_piece(self) -> bytes:
        """Return some of the present part's content, or set `_ended`."""
        at = self._buffer.find(self._mark)
        if at >= 0:
            piece = self._buffer[:at]
            self._buffer = self._buffer[at + len(self._mark) :]
            self._ended = True
            return piece
        keep = len(self._mark) - 1
        piece, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
        await self._more()
        return piece

    async def _read_name(self) -> str | None:
        """Return the field name of the part that begins here."""
        while len(self._buffer) < 2:
            await self._more()
        if self._buffer.startswith(b"--"):
            raise _malformed("there is no such field")
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise _malformed("a part's head is too long")
            await self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return _field_name(head)

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._body)
        except StopAsyncIteration:
            raise _malformed("it ends too early") from None


def _field_name(head: bytes) -> str | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            message = email.message.Message()
            message["Content-Disposition"] = value.strip().decode("utf-8", "replace")
            found = message.get_param("name", header="content-disposition")
            return found if isinstance(found, str) else None
    return None


def _malformed(why: str) -> RefusedError:
    return RefusedError(400, "invalid_entity", f"The multipart body is wrong: {why}.")
