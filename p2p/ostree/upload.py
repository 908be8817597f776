"""One file object that arrives in pieces, verified as it comes.

Canonical form is unpacked into the form of the repository. A `.filez` is kept byte
for byte, in an archive repository, and must inflate to what its name says.
"""

from __future__ import annotations

import hashlib

from p2p.errors import FormatError, IntegrityError
from p2p.ostree.config import RepoMode
from p2p.ostree.content import MAX_CONTENT_BYTES, ObjectWriter
from p2p.ostree.filez import FilezReader
from p2p.ostree.messages import Form
from p2p.ostree.objects import (
    FRAME_BYTES,
    ObjectName,
    ObjectType,
    parse_frame,
    split_canonical,
)
from p2p.ostree.stage import Stage


class Upload:
    """An object on its way into the staging store; after an error, `discard` it."""

    def __init__(
        self, stage: Stage, name: ObjectName, form: Form, size: int | None
    ) -> None:
        """Start an object of `size` bytes; nothing is visible before `finish`.

        Only the size of a `.filez` may be unknown: it says itself where it ends.

        Raises:
            FormatError: such an object is not taken here.

        """
        if name.type is not ObjectType.FILE:
            raise FormatError(f"{name}: only files come in pieces")
        self.name = name
        if size is None and form is not Form.FILEZ:
            raise FormatError(f"{name}: of unknown size")
        self._open_end = size is None
        self._size = MAX_CONTENT_BYTES if size is None else size
        self._left = self._size
        self._stage = stage
        self._digest = hashlib.sha256()
        self._head = b""
        self._writer: ObjectWriter | None = None
        self._reader: FilezReader | None = None
        if form is Form.FILEZ:
            if stage.repo.config.mode is not RepoMode.ARCHIVE:
                raise FormatError("a .filez can only be kept in an archive repository")
            self._reader = FilezReader(limit=MAX_CONTENT_BYTES)
            with stage.keeping(name):
                self._writer = stage.create_plain()

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError, FormatError: it cannot be what its name says.
            RepositoryError: it cannot be kept here.

        """
        left = self._left - len(data)
        # Should this fail, the file lacks bytes and can never be finished.
        self._left = -1
        if left < 0:
            raise self._size_error("more")
        with self._stage.keeping(self.name):
            self._stage.account(len(data))
            self._write(data)
        self._left = left

    def _write(self, data: bytes) -> None:
        if self._reader is None:
            self._digest.update(data)
        else:
            for piece in self._reader.feed(data):
                self._digest.update(piece)
        if self._writer is None:
            data = self._begin(data)
        if data and self._writer is not None:
            self._writer.write(data)

    def _begin(self, data: bytes) -> bytes:
        """Start the file once its header is complete; return the content after it."""
        self._head += data
        if len(self._head) < FRAME_BYTES:
            return b""
        end = FRAME_BYTES + parse_frame(self._head)
        if len(self._head) < end:
            return b""
        header, _ = split_canonical(self._head[:end])
        if header.is_symlink and self._size != end:
            raise FormatError("file object: symbolic link with content")
        self._writer = self._stage.create(header, self._size - end)
        content, self._head = self._head[end:], b""
        return content

    def finish(self) -> None:
        """Check the object and make it one of the store's; errors as `write`."""
        if self._left < 0 or (self._left and not self._open_end):
            raise self._size_error("fewer")
        if self._reader is not None:
            self._reader.finish()
        got = self._digest.hexdigest()
        if got != self.name.checksum:
            raise IntegrityError(
                f"object {self.name}", expected=self.name.checksum, got=got
            )
        if self._writer is None:
            raise FormatError("file object: ends within its header")
        with self._stage.keeping(self.name):
            self._stage.adopt(self.name, self._writer)
        self._writer = None

    def _size_error(self, more_or_fewer: str) -> IntegrityError:
        return IntegrityError(
            f"object {self.name}",
            expected=f"{self._size} bytes as announced",
            got=more_or_fewer,
        )

    def discard(self) -> None:
        """Remove what was written, if it did not become an object."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
