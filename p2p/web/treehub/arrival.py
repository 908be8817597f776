"""One object on its way into an archive repository, checked while it is written.

Nothing here waits for the network: pieces go in, a finished temporary file or an
error comes out. A `.filez` is kept byte for byte, but must inflate to what its name
says, have the size it says, and nothing behind.
"""

from __future__ import annotations

import contextlib
import hashlib

from p2p.errors import FormatError, IntegrityError, LimitError
from p2p.ostree.content import PlainWriter
from p2p.ostree.filez import FilezReader
from p2p.ostree.objects import (
    MAX_METADATA_BYTES,
    Commit,
    DirMeta,
    DirTree,
    ObjectName,
    ObjectType,
)

DEFAULT_MAX_CONTENT_BYTES = 64 << 30
"""How large a file may be when inflated, unless the server is told otherwise."""

_PARSERS = {
    ObjectType.COMMIT: Commit.parse,
    ObjectType.DIRTREE: DirTree.parse,
    ObjectType.DIRMETA: DirMeta.parse,
}


class Arrival:
    """Takes an object's bytes as they are stored; `path` is the temporary file."""

    def __init__(self, name: ObjectName, path: str, *, max_content_bytes: int) -> None:
        """Create the file.

        Raises:
            FormatError: objects of this kind are not taken.
            OSError: as the disk says.

        """
        self.name = name
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()
        self._reader: FilezReader | None = None
        if name.type is ObjectType.FILE:
            self._reader = FilezReader(limit=max_content_bytes)
        elif name.type not in _PARSERS:
            raise FormatError(f"objects of the kind {name.type.extension} are not kept")
        self._writer = PlainWriter(path)

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises FormatError, LimitError, IntegrityError as soon as the object cannot
        be what its name says, and OSError.
        """
        self.size += len(data)
        if self._reader is not None:
            for piece in self._reader.feed(data):
                self._digest.update(piece)
        else:
            if self.size > MAX_METADATA_BYTES:
                raise LimitError(f"{self.name}: more than {MAX_METADATA_BYTES} bytes")
            self._digest.update(data)
        self._writer.write(data)

    def finish(self) -> None:
        """Close the file; raise as `write` unless it holds the object it should."""
        if self._reader is not None:
            self._reader.finish()
        got = self._digest.hexdigest()
        if got != self.name.checksum:
            raise IntegrityError(
                f"object {self.name}", expected=self.name.checksum, got=got
            )
        self._writer.finish()
        if self._reader is None:
            with open(self.path, "rb") as file:
                _PARSERS[self.name.type](file.read())

    def discard(self) -> None:
        """Remove the file, finished or not, unless it has been moved away."""
        with contextlib.suppress(FileNotFoundError):
            self._writer.discard()
