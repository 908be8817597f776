"""Write the tree of a commit into a directory, as `ostree checkout` does.

Source of the rules: libostree `ostree-repo-checkout.c`. A file is hard-linked where
the repository keeps it as it shall be: mode bare, or bare-user for a checkout that
sets no owner. Otherwise it is copied, and what is copied is verified.

A checkout into a new directory is made beside it and renamed at the end, so that the
destination is either complete or not there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from p2p.errors import (
    DamagedObjectError,
    FormatError,
    IntegrityError,
    LimitError,
    RepositoryError,
)
from p2p.ostree.config import RepoMode
from p2p.ostree.content import ContentReader
from p2p.ostree.disk import sync_directory, sync_filesystem, writing
from p2p.ostree.objects import (
    Checksum,
    DirMeta,
    FileHeader,
    ObjectName,
    ObjectType,
    Xattrs,
)
from p2p.ostree.repo import Repo
from p2p.ostree.room import Room
from p2p.ostree.tree import DirEntry, FileEntry, find
from p2p.ostree.walk import MAX_PATHS

_USER_MODES = (RepoMode.BARE_USER, RepoMode.BARE_USER_ONLY)
# The object cannot get another name there; libostree copies it then.
_NOT_LINKABLE = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM})
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Overwrite(StrEnum):
    """What happens to files that are there already."""

    NONE = "none"
    UNION = "union"
    UNION_ADD = "union-add"


class Links(StrEnum):
    """Whether files are hard links to the repository's objects."""

    ALLOW = "allow"
    REQUIRE = "require"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutOptions:
    """How a tree is written.

    Attributes:
        user_mode: no owners, no xattrs, no setuid files.
        subpath: the directory or file of the commit to write.
        overwrite: anything but NONE writes into a directory that may be there.
        links: REQUIRE fails where a copy would be needed, but for empty files and
            the symbolic links of user modes, which are always made anew.
        canonical_dirs: no mode bits outside 0775 on directories.
        fsync: whether everything is durable before the destination appears.

    """

    user_mode: bool = False
    subpath: str = "/"
    overwrite: Overwrite = Overwrite.NONE
    links: Links = Links.ALLOW
    canonical_dirs: bool = False
    fsync: bool = False


def checkout(
    repo: Repo,
    commit: Checksum,
    destination: str | os.PathLike[str],
    options: CheckoutOptions | None = None,
) -> None:
    """Write a commit's tree.

    Raises:
        PathNotFoundError: the commit has no such subpath.
        ObjectNotFoundError, DamagedObjectError: the repository lacks or has a broken
            object. Without a union the destination does not exist then.
        RepositoryError: the destination exists, cannot be linked to, or the disk says
            no; ReadOnlyError and NoSpaceError where that is the reason.

    """
    options = options or CheckoutOptions()
    target = os.path.abspath(destination)
    source = find(repo, commit, options.subpath)
    parent = os.path.dirname(target)
    with writing(target):
        if options.overwrite is not Overwrite.NONE:
            _Checkout(repo, options).write(source, target)
            if options.fsync:
                sync_filesystem(target)
            return
        if os.path.lexists(target):
            raise RepositoryError(
                f"{target}: exists already",
                hint="Give another directory, or --union to write into this one.",
            )
        os.stat(parent)
        room = Room(parent, f".{os.path.basename(target)[:60]}.p2p-")
        try:
            fresh = room.new_path()
            _Checkout(repo, options).write(source, fresh)
            if options.fsync:
                sync_filesystem(fresh)
            os.rename(fresh, target)
        finally:
            room.close()
        if options.fsync:
            sync_directory(parent)


@dataclass(slots=True)
class _Directory:
    """A directory that is being written."""

    fd: int
    meta: DirMeta
    fresh: bool
    subdirs: Iterator[tuple[str, Checksum, Checksum]]


class _Checkout:
    """One checkout under way."""

    def __init__(self, repo: Repo, options: CheckoutOptions) -> None:
        mode = repo.config.mode
        self._repo = repo
        self._options = options
        self._user_mode = options.user_mode or mode is RepoMode.BARE_USER_ONLY
        self._canonical_dirs = options.canonical_dirs or mode is RepoMode.BARE_USER_ONLY
        self._user_repo = mode in _USER_MODES
        self._linkable = options.links is not Links.NEVER and (
            self._user_repo if self._user_mode else mode is RepoMode.BARE
        )
        if options.links is Links.REQUIRE and not self._linkable:
            raise RepositoryError(
                f"files of a repository of mode {mode} cannot be linked to "
                f"{'with' if self._user_mode else 'without'} user mode",
                hint="Use -U with bare-user, no -U with bare, or drop -H.",
            )
        self._dirmetas: dict[Checksum, DirMeta] = {}
        self._paths = 0

    def write(self, source: DirEntry | FileEntry, path: str) -> None:
        """Write a tree at path, or a file into the directory at path."""
        parent_fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            name = os.path.basename(path)
            if isinstance(source, FileEntry):
                self._write_single(source, parent_fd, name)
            else:
                self._write_tree(source, parent_fd, name)
        finally:
            os.close(parent_fd)

    def _write_single(self, source: FileEntry, parent_fd: int, name: str) -> None:
        fd, _ = self._make_directory(parent_fd, name)
        try:
            self._write_file(fd, os.path.basename(source.path), source.checksum)
        finally:
            os.close(fd)

    def _write_tree(self, source: DirEntry, parent_fd: int, name: str) -> None:
        stack = [self._enter(parent_fd, name, source.tree, source.meta)]
        try:
            while stack:
                directory = stack[-1]
                below = next(directory.subdirs, None)
                if below is not None:
                    stack.append(self._enter(directory.fd, *below))
                    continue
                if directory.fresh:
                    self._finish_directory(directory)
                os.close(stack.pop().fd)
        finally:
            for directory in stack:
                os.close(directory.fd)

    # -- directories -----------------------------------------------------------------

    def _enter(
        self, parent_fd: int, name: str, tree: Checksum, meta: Checksum
    ) -> _Directory:
        """Make a directory, write the files in it, and return it with the rest."""
        dirtree = self._repo.load_dirtree(tree)
        self._paths += len(dirtree.files) + len(dirtree.dirs)
        if self._paths > MAX_PATHS:
            raise LimitError(f"commit unfolds to more than {MAX_PATHS} paths")
        dirmeta = self._load_dirmeta(meta)
        fd, fresh = self._make_directory(parent_fd, name)
        try:
            for file_name, checksum in dirtree.files:
                self._write_file(fd, file_name, checksum)
        except BaseException:
            os.close(fd)
            raise
        return _Directory(fd, dirmeta, fresh, iter(dirtree.dirs))

    def _load_dirmeta(self, checksum: Checksum) -> DirMeta:
        if checksum not in self._dirmetas:
            name = ObjectName(checksum, ObjectType.DIRMETA)
            self._dirmetas[checksum] = DirMeta.parse(self._repo.load_metadata(name))
        return self._dirmetas[checksum]

    def _make_directory(self, parent_fd: int, name: str) -> tuple[int, bool]:
        """Return a directory, open, and whether it is new; nobody else may enter."""
        fresh = True
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            if self._options.overwrite is Overwrite.NONE:
                raise
            fresh = False
        # A link there could lead anywhere: it is not followed.
        return os.open(name, _OPEN_DIR, dir_fd=parent_fd), fresh

    def _finish_directory(self, directory: _Directory) -> None:
        fd, meta = directory.fd, directory.meta
        mode = stat.S_IMODE(meta.mode)
        if self._canonical_dirs:
            mode &= 0o775
        if not self._user_mode:
            _own(fd, meta.uid, meta.gid, meta.xattrs)
        os.fchmod(fd, mode)
        if self._options.links is not Links.NEVER:
            os.utime(fd, ns=(os.fstat(fd).st_atime_ns, 0))

    # -- files -----------------------------------------------------------------------

    def _write_file(self, dir_fd: int, name: str, checksum: Checksum) -> None:
        if self._options.overwrite is Overwrite.UNION_ADD and _exists(dir_fd, name):
            return
        with self._repo.open_content(checksum) as reader:
            if self._is_linkable(reader):
                path = self._repo.object_path(ObjectName(checksum, ObjectType.FILE))
                if self._link(path, dir_fd, name):
                    return
            with _replacing(dir_fd, name, self._options.overwrite) as fresh:
                self._copy(reader, dir_fd, fresh, checksum)

    def _is_linkable(self, reader: ContentReader) -> bool:
        """Tell whether the object may be linked to; empty files have too many names."""
        if not self._linkable:
            return False
        if reader.header.is_symlink:
            return not self._user_repo
        if self._user_mode and not reader.header.mode & stat.S_IRUSR:
            return False
        return reader.size > 0

    def _link(self, path: str, dir_fd: int, name: str) -> bool:
        """Link to an object; tell whether that was possible."""
        try:
            union = self._options.overwrite is Overwrite.UNION
            if union and _is_same(path, dir_fd, name):
                return True
            with _replacing(dir_fd, name, self._options.overwrite) as fresh:
                os.link(path, fresh, dst_dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            # An object of the parent repository is not at that path.
            possible = error.errno not in {*_NOT_LINKABLE, errno.ENOENT}
            if possible or self._options.links is Links.REQUIRE:
                raise
            return False
        return True

    def _copy(
        self, reader: ContentReader, dir_fd: int, name: str, checksum: Checksum
    ) -> None:
        header = reader.header
        if header.is_symlink:
            _check(hashlib.sha256(header.frame()).hexdigest(), checksum)
            os.symlink(header.symlink_target, name, dir_fd=dir_fd)
            if not self._user_mode:
                os.chown(
                    name, header.uid, header.gid, dir_fd=dir_fd, follow_symlinks=False
                )
                _set_xattrs(f"/proc/self/fd/{dir_fd}/{name}", header.xattrs)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
        try:
            _copy_content(reader, fd, checksum)
            self._finish_file(fd, header)
        finally:
            os.close(fd)

    def _finish_file(self, fd: int, header: FileHeader) -> None:
        mode = stat.S_IMODE(header.mode)
        if self._user_mode:
            # A user's own file is always readable to the user.
            mode = mode & ~(stat.S_ISUID | stat.S_ISGID) | stat.S_IRUSR
        else:
            _own(fd, header.uid, header.gid, header.xattrs)
        os.fchmod(fd, mode)


def _copy_content(reader: ContentReader, fd: int, checksum: Checksum) -> None:
    digest = hashlib.sha256(reader.header.frame())
    try:
        for piece in reader.content():
            digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
    except (FormatError, IntegrityError) as error:
        raise DamagedObjectError(f"object {checksum}.file: {error}") from None
    _check(digest.hexdigest(), checksum)


def _check(got: str, checksum: Checksum) -> None:
    if got != checksum:
        raise DamagedObjectError(
            f"object {checksum}.file is damaged: its content has the checksum {got}"
        )


def _own(fd: int, uid: int, gid: int, xattrs: Xattrs) -> None:
    # Before the mode is set: a change of owner drops setuid bits and capabilities.
    try:
        os.fchown(fd, uid, gid)
    except PermissionError:
        raise RepositoryError(
            f"only root may give a file to {uid}:{gid}",
            hint="Run as root, or use -U (user mode).",
        ) from None
    _set_xattrs(fd, xattrs)


def _set_xattrs(target: int | str, xattrs: Xattrs) -> None:
    for name, value in xattrs:
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EINVAL):
                raise
            raise RepositoryError(
                f"xattr {name.decode(errors='replace')} cannot be set: "
                f"{error.strerror}",
                hint="Run as root on a filesystem that keeps it, or use -U.",
            ) from None


@contextlib.contextmanager
def _replacing(dir_fd: int, name: str, overwrite: Overwrite) -> Iterator[str]:
    """Give a name to write under; afterwards it takes the place of what is there."""
    if overwrite is not Overwrite.UNION:
        yield name
        return
    fresh = f".p2p-{os.getpid()}-{os.urandom(6).hex()}"
    try:
        yield fresh
        os.replace(fresh, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=dir_fd)
        raise


def _exists(dir_fd: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True


def _is_same(path: str, dir_fd: int, name: str) -> bool:
    """Tell whether a name is a hard link of the object already."""
    if not _exists(dir_fd, name):
        return False
    there, ours = os.lstat(name, dir_fd=dir_fd), os.lstat(path)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
