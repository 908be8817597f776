"""Refs of a repository: heads, remotes and mirrors, and links between them.

Source: libostree `ostree-repo-refs.c`. A ref is a file below `refs/` with 64 hex
digits and a newline; an alias is a relative symbolic link to another ref.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from typing import NewType

from p2p.errors import FormatError, RefNotFoundError, RepositoryError
from p2p.ostree.config import COLLECTION_ID, REMOTE_NAME
from p2p.ostree.disk import sync_directory
from p2p.ostree.objects import Checksum, parse_checksum

RefPath = NewType("RefPath", str)
"""A ref as a path below `refs/`: `heads/X`, `remotes/R/X` or `mirrors/C/X`."""

_FRAGMENT = r"[A-Za-z0-9_][-._A-Za-z0-9]*"
_REF = re.compile(rf"{_FRAGMENT}(/{_FRAGMENT})*")
MAX_REF_LENGTH = 1024


def check_ref(ref: str) -> str:
    """Return a ref's name; FormatError unless it is one (libostree's grammar)."""
    if len(ref) > MAX_REF_LENGTH or not _REF.fullmatch(ref):
        raise FormatError(
            f"not a ref: {ref[:100]!r}",
            hint="A ref is like os/x86_64/stable: letters, digits, - . _ and /.",
        )
    return ref


def head(ref: str) -> RefPath:
    """Return where a local branch is kept."""
    return RefPath(f"heads/{check_ref(ref)}")


def remote_ref(remote: str, ref: str) -> RefPath:
    """Return where what a remote's branch was last pulled as is kept."""
    if not REMOTE_NAME.fullmatch(remote):
        raise FormatError(f"not a remote: {remote[:100]!r}")
    return RefPath(f"remotes/{remote}/{check_ref(ref)}")


def mirror_ref(collection: str, ref: str) -> RefPath:
    """Return where a mirrored collection-ref is kept."""
    if not COLLECTION_ID.fullmatch(collection):
        raise FormatError(f"not a collection id: {collection[:100]!r}")
    return RefPath(f"mirrors/{collection}/{check_ref(ref)}")


def parse_refspec(refspec: str) -> RefPath:
    """Return the place of `REMOTE:REF` or `REF`."""
    remote, colon, ref = refspec.partition(":")
    return remote_ref(remote, ref) if colon else head(refspec)


class Refs:
    """The refs below one repository's `refs/` directory."""

    def __init__(self, directory: str, *, fsync: bool) -> None:
        """`fsync` says whether a change is made durable before it returns."""
        self._directory = directory
        self._fsync = fsync

    def get(self, ref: RefPath) -> Checksum | None:
        """Return the commit a ref names, or None; FormatError if it is damaged."""
        path = self._resolve_alias(ref)
        try:
            with open(path, "rb") as file:
                text = file.read(80)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return parse_checksum(text.decode("ascii", "replace").strip())

    def resolve(self, ref: RefPath) -> Checksum:
        """Return the commit a ref names; RefNotFoundError if there is none."""
        commit = self.get(ref)
        if commit is None:
            raise RefNotFoundError(f"there is no ref {ref}")
        return commit

    def _resolve_alias(self, ref: RefPath) -> str:
        """Return the file behind a ref; aliases may not lead out of `refs/`."""
        path = os.path.join(self._directory, ref)
        root = os.path.realpath(self._directory)
        real = os.path.realpath(path)
        if os.path.commonpath((root, real)) != root:
            raise FormatError(f"ref {ref}: its link leads out of the repository")
        return real

    def set(self, ref: RefPath, commit: Checksum) -> None:
        """Make a ref name a commit, atomically; an alias's target is changed.

        Raises:
            RepositoryError: another ref is a directory on the way, or is below.

        """
        path = self._resolve_alias(ref)
        directory = os.path.dirname(path)
        # Not beside the ref: there its name would itself be a valid ref.
        scratch = os.path.join(os.path.dirname(self._directory), "tmp")
        os.makedirs(scratch, 0o775, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix="ref-", dir=scratch)
        try:
            os.write(fd, f"{commit}\n".encode())
            os.fchmod(fd, 0o644)
            if self._fsync:
                os.fsync(fd)
            os.makedirs(directory, 0o775, exist_ok=True)
            os.rename(temporary, path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            os.unlink(temporary)
            raise RepositoryError(f"ref {ref}: another ref is in its way") from None
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        if self._fsync:
            self._sync_up(directory)
        os.utime(os.path.dirname(self._directory))

    def _sync_up(self, directory: str) -> None:
        """Make the directory's entry durable, and those of directories just made."""
        while True:
            sync_directory(directory)
            if directory == self._directory:
                return
            directory = os.path.dirname(directory)

    def delete(self, ref: RefPath) -> bool:
        """Remove a ref and the directories it leaves empty; tell if it was there."""
        path = os.path.join(self._directory, ref)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        keep = {
            os.path.join(self._directory, d) for d in ("heads", "remotes", "mirrors")
        }
        directory = os.path.dirname(path)
        while directory not in keep and len(directory) > len(self._directory):
            try:
                os.rmdir(directory)
            except OSError:
                break
            directory = os.path.dirname(directory)
        os.utime(os.path.dirname(self._directory))
        return True

    def all(self, prefix: str = "") -> Iterator[tuple[RefPath, Checksum]]:
        """Yield every ref below a prefix such as `heads/` with its commit, sorted."""
        base = os.path.join(self._directory, prefix)
        for directory, subdirectories, names in os.walk(base):
            subdirectories.sort()
            for name in sorted(names):
                path = os.path.relpath(os.path.join(directory, name), self._directory)
                if all(map(_REF.fullmatch, path.split("/"))):
                    commit = self.get(RefPath(path))
                    if commit is not None:
                        yield RefPath(path), commit
