"""The directory to commit: what each of its inodes becomes in a commit.

Source of the rules: libostree `ostree-repo-commit.c` (write_dfd_iter_to_mtree and
_ostree_repo_commit_modifier_apply) and `ot-builtin-commit.c` (commit_filter).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from p2p.errors import SourceTreeError
from p2p.ostree.content import READ_BYTES, read_xattrs
from p2p.ostree.objects import (
    Checksum,
    DirMeta,
    FileHeader,
    Xattrs,
)

# Files up to this size are held in memory between hashing and writing.
SMALL_BYTES = 1 << 20
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """How the inodes of a directory are changed on their way into a commit.

    Attributes:
        xattrs: whether extended attributes are taken.
        owner_uid: user of everything, instead of its own.
        owner_gid: group of everything, instead of its own.
        canonical_permissions: owner 0:0, no xattrs, no mode bits outside 0755.
        add_modes: permission bits to add, by absolute path below the directory.
        set_modes: permission bits to have, by absolute path.
        skip: absolute paths to leave out, with what is below them.

    """

    xattrs: bool = True
    owner_uid: int | None = None
    owner_gid: int | None = None
    canonical_permissions: bool = False
    add_modes: Mapping[str, int] = field(default_factory=dict)
    set_modes: Mapping[str, int] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()

    @property
    def paths(self) -> set[str]:
        """All paths that are named, each of which must exist."""
        return {*self.add_modes, *self.set_modes, *self.skip}


@dataclass(slots=True)
class SourceDirectory:
    """One directory of the tree.

    Attributes:
        path: where it is.
        inside: its absolute path within the tree.
        files: names of the regular files and symbolic links in it.
        dirs: names of the directories in it.
        checksums: of the files, by name; filled by who hashes them.

    """

    path: str
    inside: str
    meta: DirMeta
    files: list[str] = field(default_factory=list)
    dirs: list[str] = field(default_factory=list)
    checksums: dict[str, Checksum] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file or symbolic link, read.

    Attributes:
        data: its content, or None for one too large to hold, which `pieces` reads.
        size: length of the content, or of a link's target, in bytes.
        inode: device and number, where the inode has other names too.
        checksum: the object's name, where the inode was hashed under another name.

    """

    path: str
    header: FileHeader
    size: int
    data: bytes | None
    identity: tuple[int, ...]
    inode: tuple[int, int] | None = None
    checksum: Checksum | None = None


class Source:
    """A directory that is being committed.

    Attributes:
        links: checksums of inodes with several names; filled by who hashes them.

    """

    def __init__(self, directory: str, options: SourceOptions) -> None:
        """Nothing is read yet."""
        self.root = os.path.abspath(directory)
        self._options = options
        self._xattrs = options.xattrs and not options.canonical_permissions
        self._plain = not (
            options.canonical_permissions
            or options.add_modes
            or options.set_modes
            or options.owner_uid is not None
            or options.owner_gid is not None
        )
        # One header for the many files that have the same owner, mode and xattrs.
        self._headers: dict[tuple[int, int, int, str, Xattrs], FileHeader] = {}
        self.links: dict[tuple[int, int], Checksum] = {}

    def directories(self) -> Iterator[SourceDirectory]:
        """Yield every directory with its entries' names, parents before children.

        Raises:
            SourceTreeError: an entry cannot be committed, or not be read.

        """
        missing = set(self._options.paths)
        stack = [(self.root, "/")]
        while stack:
            path, inside = stack.pop()
            with _reading(path):
                directory = self._directory(path, inside, missing)
            yield directory
            prefix = inside.rstrip("/")
            stack += [(f"{path}/{name}", f"{prefix}/{name}") for name in directory.dirs]
        if missing:
            raise SourceTreeError(f"{self.root}: there is no {min(missing)} to change")

    def _directory(self, path: str, inside: str, missing: set[str]) -> SourceDirectory:
        fd = os.open(path, _OPEN | os.O_DIRECTORY)
        try:
            status = os.fstat(fd)
            uid, gid, mode = self._permissions(status, inside)
            xattrs = read_xattrs(fd) if self._xattrs else ()
            meta = DirMeta(uid, gid, mode, xattrs)
            found = SourceDirectory(path, inside, meta)
            with os.scandir(fd) as entries:
                self._sort_entries(entries, found, missing)
        finally:
            os.close(fd)
        missing.discard(inside)
        return found

    def _sort_entries(
        self,
        entries: Iterator[os.DirEntry[str]],
        found: SourceDirectory,
        missing: set[str],
    ) -> None:
        prefix = found.inside.rstrip("/")
        named = bool(self._options.paths)
        for entry in entries:
            name = entry.name
            if not name.isascii():
                _check_name(name, found.path)
            if named:
                inside = f"{prefix}/{name}"
                missing.discard(inside)
                if inside in self._options.skip:
                    continue
            if entry.is_dir(follow_symlinks=False):
                found.dirs.append(name)
            elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                found.files.append(name)
            else:
                raise _unsuitable(f"{found.path}/{name}")

    def _permissions(self, status: os.stat_result, inside: str) -> tuple[int, int, int]:
        uid, gid, mode = status.st_uid, status.st_gid, status.st_mode
        if self._plain:
            return uid, gid, mode
        options = self._options
        if options.owner_uid is not None:
            uid = options.owner_uid
        if options.owner_gid is not None:
            gid = options.owner_gid
        if inside in options.set_modes:
            mode = stat.S_IFMT(mode) | options.set_modes[inside]
        elif inside in options.add_modes:
            mode |= options.add_modes[inside]
        if options.canonical_permissions:
            uid = gid = 0
            if not stat.S_ISLNK(mode):
                mode &= stat.S_IFMT(mode) | 0o755
        return uid, gid, mode

    def _header(
        self, status: os.stat_result, inside: str, target: str, xattrs: Xattrs
    ) -> FileHeader:
        key = (*self._permissions(status, inside), target, xattrs)
        header = self._headers.get(key)
        if header is None:
            header = FileHeader(*key)
            if not target:
                self._headers[key] = header
        return header

    # -- files -------------------------------------------------------------------

    def read(self, directory: SourceDirectory, name: str) -> SourceFile:
        """Return a file as it is at one moment.

        Raises:
            SourceTreeError: it keeps changing, or cannot be read or committed.

        """
        path = f"{directory.path}/{name}"
        inside = f"{directory.inside.rstrip('/')}/{name}"
        with _reading(path):
            for _ in range(_ATTEMPTS):
                try:
                    fd = os.open(path, _OPEN)
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    return self._read_symlink(path, inside)
                try:
                    file = self._read_open(fd, path, inside)
                finally:
                    os.close(fd)
                if file is not None:
                    return file
        raise changed_error(path)

    def _read_open(self, fd: int, path: str, inside: str) -> SourceFile | None:
        """Return the file, or None if it changed while it was read."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _unsuitable(path)
        size = status.st_size
        xattrs = read_xattrs(fd) if self._xattrs else ()
        header = self._header(status, inside, "", xattrs)
        identity = _identity(status)
        inode = None
        if status.st_nlink > 1 and self._plain:
            inode = (status.st_dev, status.st_ino)
            if checksum := self.links.get(inode):
                return SourceFile(path, header, size, None, identity, inode, checksum)
        data = None
        if size <= SMALL_BYTES:
            data = os.read(fd, size + 1)
            if len(data) != size:
                return None
        if _identity(os.fstat(fd)) != identity:
            return None
        return SourceFile(path, header, size, data, identity, inode)

    def _read_symlink(self, path: str, inside: str) -> SourceFile:
        status = os.lstat(path)
        target = os.readlink(path)
        try:
            length = len(target.encode())
        except UnicodeEncodeError:
            raise SourceTreeError(
                f"{path!r}: its target {target!r} is not UTF-8",
                hint="OSTree keeps targets of links as UTF-8 text; change the link.",
            ) from None
        xattrs = read_xattrs(path) if self._xattrs else ()
        header = self._header(status, inside, target, xattrs)
        return SourceFile(path, header, length, b"", _identity(status))

    def pieces(self, file: SourceFile) -> Iterator[bytes]:
        """Yield the content of a file that was too large to hold.

        Raises:
            SourceTreeError: it is not the file any more that was read before.

        """
        with _reading(file.path):
            fd = os.open(file.path, _OPEN)
            try:
                while piece := os.read(fd, READ_BYTES):
                    yield piece
                if _identity(os.fstat(fd)) != file.identity:
                    raise changed_error(file.path)
            finally:
                os.close(fd)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what the disk says in the block into SourceTreeError, naming the path."""
    try:
        yield
    except OSError as error:
        raise SourceTreeError(
            f"{path}: {error.strerror}",
            hint="Nothing was committed; see that every file can be read.",
        ) from error


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _check_name(name: str, directory: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SourceTreeError(
            f"{directory}: the name {os.fsencode(name)!r} is not UTF-8",
            hint="OSTree keeps names as UTF-8 text; rename or skip the file.",
        ) from None


def _unsuitable(path: str) -> SourceTreeError:
    return SourceTreeError(
        f"{path}: is no regular file, symbolic link or directory",
        hint="OSTree keeps no devices, pipes or sockets; remove it or skip it.",
    )


def changed_error(path: str) -> SourceTreeError:
    """Return the error for a file that somebody writes to."""
    return SourceTreeError(
        f"{path}: was changed while it was read",
        hint="Nothing was committed; commit again when nobody writes to the tree.",
    )
