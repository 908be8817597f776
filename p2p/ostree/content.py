"""How a file object lies on disk in each repository mode: write it and read it.

Source: libostree `ostree-repo-commit.c` (create_regular_tmpfile_linkable_with_content,
write_content_object) and `ostree-repo.c` (_ostree_repo_load_file_bare). An existing
object is never opened for writing: its inode may be a file of the running system.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from p2p.errors import (
    DamagedObjectError,
    FormatError,
    IntegrityError,
    RepositoryError,
)
from p2p.ostree import filez
from p2p.ostree.config import RepoMode
from p2p.ostree.gvariant import codec
from p2p.ostree.objects import (
    Checksum,
    FileHeader,
    Xattrs,
    parse_filez_header,
    parse_frame,
    parse_inode,
    serialize_inode,
)

OSTREEMETA = "user.ostreemeta"
"""xattr in which bare-user repositories keep owner, mode and xattrs."""

READ_BYTES = 1 << 18
_SPLIT_XATTRS = codec("a(ayay)")
# Any larger file is refused: no real tree has one, and a `.filez` can lie.
MAX_CONTENT_BYTES = 1 << 42


class ObjectWriter(Protocol):
    """Takes an object's bytes and leaves a finished file at `path`."""

    path: str

    def write(self, data: bytes | memoryview) -> None:
        """Add content."""

    def finish(self) -> None:
        """Give the file its final inode: owner, mode, xattrs, time."""

    def discard(self) -> None:
        """Remove the unfinished file."""


class _RegularFile:
    """A new regular file; subclasses say what its inode gets."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )

    def write(self, data: bytes | memoryview) -> None:
        written = os.write(self._fd, data)
        while written < len(data):
            data = data[written:]
            written = os.write(self._fd, data)

    def _begin(self, data: bytes) -> None:
        """Write what comes before the content; leave nothing behind on failure."""
        try:
            _RegularFile.write(self, data)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        os.unlink(self.path)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)


class PlainWriter(_RegularFile):
    """A metadata object, or a `.filez` taken over as it is: mode 0644."""

    def finish(self) -> None:
        """Set the mode."""
        os.fchmod(self._fd, 0o644)
        self._close()


class _ArchiveWriter(_RegularFile):
    def __init__(self, path: str, header: FileHeader, size: int, level: int) -> None:
        super().__init__(path)
        self._deflater = (
            None if header.is_symlink else zlib.compressobj(level, zlib.DEFLATED, -15)
        )
        self._begin(header.serialize_filez(size))

    def write(self, data: bytes | memoryview) -> None:
        if self._deflater is not None and (packed := self._deflater.compress(data)):
            super().write(packed)

    def finish(self) -> None:
        if self._deflater is not None:
            super().write(self._deflater.flush())
        os.fchmod(self._fd, 0o644)
        self._close()


class _BareWriter(_RegularFile):
    def __init__(self, path: str, header: FileHeader) -> None:
        super().__init__(path)
        self._header = header

    def finish(self) -> None:
        # chown drops setuid bits and capabilities, so it comes first.
        _chown(self._fd, self._header)
        os.fchmod(self._fd, stat.S_IMODE(self._header.mode))
        for name, value in self._header.xattrs:
            _setxattr(self._fd, name, value)
        os.utime(self._fd, (0, 0))
        self._close()


class _BareUserWriter(_RegularFile):
    def __init__(self, path: str, header: FileHeader) -> None:
        super().__init__(path)
        self._header = header
        if header.is_symlink:
            self._begin(header.symlink_target.encode() + b"\0")

    def finish(self) -> None:
        header = self._header
        meta = serialize_inode(header.uid, header.gid, header.mode, header.xattrs)
        _setxattr(self._fd, OSTREEMETA.encode(), meta)
        if header.is_symlink:
            os.fchmod(self._fd, 0o644)
        else:
            os.fchmod(self._fd, (header.mode & 0o775) | 0o400)
        os.utime(self._fd, (0, 0))
        self._close()


def _check_bare_user_only(header: FileHeader) -> None:
    """Refuse what this mode would forget, so that the checksum was true no more.

    libostree refuses the modes only (_ostree_validate_bareuseronly_mode) and lets
    `ostree fsck` find the rest.
    """
    lost = ""
    if header.uid or header.gid:
        lost = f"owned by {header.uid}:{header.gid}"
    elif header.xattrs:
        lost = "with xattrs"
    elif not header.is_symlink and header.mode & 0o7777 & ~0o775:
        lost = f"of mode {header.mode & 0o7777:o}"
    if lost:
        raise RepositoryError(
            f"a file {lost} cannot be kept in a bare-user-only repository",
            hint="Use a bare-user repository for trees with such files.",
        )


class _BareUserOnlyWriter(_RegularFile):
    def __init__(self, path: str, header: FileHeader) -> None:
        super().__init__(path)
        self._mode = header.mode & 0o775

    def finish(self) -> None:
        os.fchmod(self._fd, self._mode)
        os.utime(self._fd, (0, 0))
        self._close()


class _SymlinkWriter:
    """A real symbolic link (bare and bare-user-only); its time is left as it is."""

    def __init__(self, path: str, header: FileHeader, *, owned: bool) -> None:
        self.path = path
        self._header = header
        self._owned = owned
        os.symlink(header.symlink_target, path)

    def write(self, data: bytes | memoryview) -> None:
        raise FormatError(f"symbolic link with {len(data)} bytes of content")

    def finish(self) -> None:
        if self._owned:
            _chown(self.path, self._header)
            for name, value in self._header.xattrs:
                _setxattr(self.path, name, value)

    def discard(self) -> None:
        os.unlink(self.path)


@dataclass(frozen=True, slots=True)
class ContentStyle:
    """How this repository keeps files: its mode and the options that bear on it."""

    mode: RepoMode
    disable_xattrs: bool = False
    zlib_level: int = filez.DEFAULT_LEVEL

    def create(self, path: str, header: FileHeader, size: int) -> ObjectWriter:
        """Start a new object file at `path`; `size` is its content's, in bytes.

        Raises:
            RepositoryError: this mode cannot hold such a file.
            OSError: as the filesystem says.

        """
        if self.mode is RepoMode.ARCHIVE:
            return _ArchiveWriter(path, header, size, self.zlib_level)
        if self.mode is RepoMode.BARE_USER:
            return _BareUserWriter(path, header)
        if self.mode is RepoMode.BARE_USER_ONLY:
            _check_bare_user_only(header)
            if header.is_symlink:
                return _SymlinkWriter(path, header, owned=False)
            return _BareUserOnlyWriter(path, header)
        if self.mode is RepoMode.BARE:
            if header.is_symlink:
                return _SymlinkWriter(path, header, owned=True)
            # As libostree, whose disable-xattrs bears on reading only.
            return _BareWriter(path, header)
        raise RepositoryError(
            f"repositories of mode {self.mode} are only read",
            hint="Publish through libostree, or use another mode.",
        )

    def open(self, path: str) -> ContentReader:
        """Open an object file for reading.

        Raises:
            FileNotFoundError: it is not there (any more).
            FormatError: it is no object of this mode.

        """
        if self.mode is RepoMode.ARCHIVE:
            return _open_archive(path)
        return _open_bare(path, self.mode, disable_xattrs=self.disable_xattrs)


def _chown(target: int | str, header: FileHeader) -> None:
    try:
        if isinstance(target, int):
            os.fchown(target, header.uid, header.gid)
        else:
            os.lchown(target, header.uid, header.gid)
    except PermissionError:
        raise RepositoryError(
            f"only root may give a file to {header.uid}:{header.gid}",
            hint="Run as root, or use a bare-user repository.",
        ) from None


def _setxattr(target: int | str, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            raise
        raise RepositoryError(
            f"xattr {name.decode(errors='replace')} cannot be set: {error.strerror}",
            hint="The filesystem or this process may not hold it; publish "
            "through libostree as root, or use another repository mode.",
        ) from None


class ContentReader:
    """A file object opened for reading; a context manager.

    Attributes:
        header: what the checksum covers besides the content.
        size: length of the content in bytes, as the file or its header says.
        packed: whether the file holds the content deflated.

    """

    def __init__(
        self, header: FileHeader, size: int, fd: int | None, *, packed: bool = False
    ) -> None:
        """Take over `fd`, placed where the content (or its deflate form) begins."""
        self.header = header
        self.size = size
        self._fd = fd
        self.packed = packed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def content(self) -> Iterator[bytes]:
        """Yield the content once, in pieces; nothing for a symbolic link.

        Raises FormatError or IntegrityError when the file is not what it says.
        """
        if self._fd is None:
            return
        if self.packed:
            yield from self._inflate(self._fd)
            return
        left = self.size
        # One byte more is asked for, which tells the end without another call.
        while left >= 0 and (piece := os.read(self._fd, min(READ_BYTES, left + 1))):
            left -= len(piece)
            yield piece
            if not left:
                break
        if left:
            raise FormatError(f"file changed its size by {-left} bytes while read")

    def _inflate(self, fd: int) -> Iterator[bytes]:
        reader = filez.FilezReader(limit=self.size)
        next(reader.feed(self.header.serialize_filez(self.size)))
        while piece := os.read(fd, READ_BYTES):
            yield from reader.feed(piece)
        reader.finish()

    def read_at(self, offset: int, length: int) -> bytes:
        """Return a range of the content; only where the file is not packed."""
        return b"" if self._fd is None else os.pread(self._fd, length, offset)

    def canonical(self) -> Iterator[bytes]:
        """Yield the bytes that the checksum covers: framed header, content."""
        yield self.header.frame()
        yield from self.content()

    def checksum(self) -> Checksum:
        """Read everything and return the object's checksum."""
        digest = hashlib.sha256()
        for piece in self.canonical():
            digest.update(piece)
        return Checksum(digest.hexdigest())

    def check(self, checksum: Checksum, path: str) -> None:
        """Raise DamagedObjectError unless the content has this checksum."""
        try:
            got = self.checksum()
        except (FormatError, IntegrityError) as error:
            raise DamagedObjectError(f"{path}: {error}") from None
        if got != checksum:
            raise DamagedObjectError(
                f"{path}: damaged: its content has the checksum {got}"
            )


def _open_archive(path: str) -> ContentReader:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        frame = os.read(fd, 8)
        if len(frame) != 8:
            raise FormatError("file object: shorter than its frame")
        length = parse_frame(frame)
        header, size = parse_filez_header(os.read(fd, length))
        if size > MAX_CONTENT_BYTES:
            raise FormatError(f"file object claims {size} bytes")
        if header.is_symlink and os.read(fd, 1):
            raise FormatError("file object: symbolic link with content")
    except BaseException:
        os.close(fd)
        raise
    if header.is_symlink:
        os.close(fd)
        return ContentReader(header, 0, None)
    return ContentReader(header, size, fd, packed=True)


def _open_bare(path: str, mode: RepoMode, *, disable_xattrs: bool) -> ContentReader:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        # A symbolic link: few are, and most modes have none.
        status = os.lstat(path)
        header = _bare_header(path, status, mode, disable_xattrs=disable_xattrs)
        return ContentReader(header, 0, None)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError("file object: neither regular file nor symbolic link")
        if mode is RepoMode.BARE_USER:
            return _open_bare_user(fd, status)
        header = _bare_header(path, status, mode, disable_xattrs=disable_xattrs, fd=fd)
        return ContentReader(header, status.st_size, fd)
    except BaseException:
        os.close(fd)
        raise


def _open_bare_user(fd: int, status: os.stat_result) -> ContentReader:
    try:
        meta = os.getxattr(fd, OSTREEMETA)
    except OSError as error:
        raise FormatError(f"file object without {OSTREEMETA}: {error}") from None
    uid, gid, mode, xattrs = parse_inode(meta)
    if not stat.S_ISLNK(mode):
        return ContentReader(FileHeader(uid, gid, mode, "", xattrs), status.st_size, fd)
    target = os.read(fd, 4097)
    # libostree writes the closing NUL; releases before 2015 did not.
    text = target.removesuffix(b"\0").decode("utf-8", "surrogateescape")
    if not text or "\0" in text:
        raise FormatError("file object: symbolic link without a usable target")
    os.close(fd)
    return ContentReader(FileHeader(uid, gid, mode, text, xattrs), 0, None)


def _bare_header(
    path: str,
    status: os.stat_result,
    mode: RepoMode,
    *,
    disable_xattrs: bool,
    fd: int | None = None,
) -> FileHeader:
    link = os.readlink(path) if fd is None else ""
    if mode is RepoMode.BARE_USER_ONLY:
        # Owner and xattrs are not kept: canonical ones are assumed.
        file_mode = status.st_mode if fd is None else stat.S_IFREG | status.st_mode
        return FileHeader(0, 0, file_mode & 0o177777, link)
    if mode is RepoMode.BARE_SPLIT_XATTRS:
        xattrs = _read_split_xattrs(path)
    elif disable_xattrs:
        xattrs = ()
    else:
        xattrs = read_xattrs(path if fd is None else fd)
    return FileHeader(status.st_uid, status.st_gid, status.st_mode, link, xattrs)


def read_xattrs(target: int | str) -> Xattrs:
    """Return all xattrs of an inode, sorted by name; () where there can be none.

    Those with an empty value are left out, as libglnx does (`glnx-xattrs.c`): such
    an object has the checksum without them.
    """
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    xattrs = [
        (os.fsencode(name), os.getxattr(target, name, follow_symlinks=follow))
        for name in names
    ]
    return tuple(sorted(pair for pair in xattrs if pair[1]))


def _read_split_xattrs(path: str) -> Xattrs:
    link = path.removesuffix(".file") + ".file-xattrs-link"
    with open(link, "rb") as file:
        pairs = _SPLIT_XATTRS.decode(file.read(1 << 20))
    return tuple((name.rstrip(b"\0"), value) for name, value in pairs)
