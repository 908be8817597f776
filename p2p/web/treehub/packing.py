"""Objects of a local repository, verified and packed as an origin keeps them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from p2p.errors import DamagedObjectError, FormatError, IntegrityError, LimitError
from p2p.ostree.config import RepoMode
from p2p.ostree.content import MAX_CONTENT_BYTES, READ_BYTES, ContentReader
from p2p.ostree.filez import FilezReader, from_content
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.web.client.request import Upload

IN_MEMORY_BYTES = 1 << 20
"""Files up to this size are packed in memory, larger ones into a temporary file."""


class Package(NamedTuple):
    """An object ready to be sent: the body of a request, and its length in bytes."""

    body: bytes | Upload
    size: int

    def close(self) -> None:
        """Let go of the file behind it, if there is one."""
        if isinstance(self.body, Upload):
            self.body.file.close()


def pack(repo: Repo, name: ObjectName) -> Package:
    """Return an object as an archive repository keeps it.

    A `.filez` of an archive repository is sent as it is; of other modes it is made.

    Raises:
        ObjectNotFoundError: the repository does not hold it.
        DamagedObjectError: it is not what its name says; names the file.

    """
    if name.type is not ObjectType.FILE:
        data = repo.load_metadata(name)
        return Package(data, len(data))
    if repo.config.mode is RepoMode.ARCHIVE:
        with suppress(FileNotFoundError):
            return _take(name.checksum, repo.object_path(name))
    with repo.open_content(name.checksum) as reader:
        return _make(name.checksum, reader, repo)


def _take(checksum: Checksum, path: str) -> Package:
    """Return a `.filez` as it lies there, after it was read and checked."""
    file = open(path, "rb")  # noqa: SIM115 - closed with the package
    try:
        size = os.fstat(file.fileno()).st_size
        kept: list[bytes] | None = [] if size <= IN_MEMORY_BYTES else None
        _check_filez(checksum, path, file, kept)
    except BaseException:
        file.close()
        raise
    if kept is None:
        return Package(Upload(file, size), size)
    file.close()
    data = b"".join(kept)
    return Package(data, len(data))


def _check_filez(
    checksum: Checksum, path: str, file: BinaryIO, kept: list[bytes] | None
) -> None:
    """Raise DamagedObjectError unless the file is the object; keep what is read."""
    digest = hashlib.sha256()
    reader = FilezReader(limit=MAX_CONTENT_BYTES)
    try:
        while data := file.read(READ_BYTES):
            for piece in reader.feed(data):
                digest.update(piece)
            if kept is not None:
                kept.append(data)
        reader.finish()
    except (FormatError, IntegrityError, LimitError) as error:
        raise DamagedObjectError(f"{path}: damaged: {error}") from None
    _compare(checksum, digest.hexdigest(), path)


def _make(checksum: Checksum, reader: ContentReader, repo: Repo) -> Package:
    """Return a file's content packed as a `.filez`."""
    digest = hashlib.sha256(reader.header.frame())
    path = repo.object_path(ObjectName(checksum, ObjectType.FILE))

    def content() -> Iterator[bytes]:
        for piece in reader.content():
            digest.update(piece)
            yield piece

    level = repo.config.zlib_level
    packed = from_content(reader.header, reader.size, content(), level=level)
    try:
        if reader.size <= IN_MEMORY_BYTES:
            data = b"".join(packed)
            package = Package(data, len(data))
        else:
            package = _spool(packed, repo)
    except (FormatError, IntegrityError) as error:
        raise DamagedObjectError(f"{path}: damaged: {error}") from None
    try:
        _compare(checksum, digest.hexdigest(), path)
    except DamagedObjectError:
        package.close()
        raise
    return package


def _spool(packed: Iterator[bytes], repo: Repo) -> Package:
    """Write to a temporary file, beside the repository if one may."""
    directory = os.path.join(repo.path, "tmp")
    writable = os.access(directory, os.W_OK)
    file = tempfile.TemporaryFile(  # noqa: SIM115 - closed with the package
        dir=directory if writable else None
    )
    try:
        for piece in packed:
            file.write(piece)
        file.flush()
    except BaseException:
        file.close()
        raise
    size = file.tell()
    return Package(Upload(file, size), size)


def _compare(expected: Checksum, got: str, path: str) -> None:
    if got != expected:
        raise DamagedObjectError(f"{path}: damaged: its content has the checksum {got}")
