"""Look around in a commit: find a path, list what is below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from p2p.errors import PathNotFoundError
from p2p.ostree.objects import (
    Checksum,
    DirMeta,
    FileHeader,
    ObjectName,
    ObjectType,
)
from p2p.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class DirEntry:
    """A directory in a commit; `path` is absolute within it."""

    path: str
    tree: Checksum
    meta: Checksum


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A regular file or symbolic link in a commit."""

    path: str
    checksum: Checksum


Entry = DirEntry | FileEntry


def find(repo: Repo, commit: Checksum, path: str = "/") -> Entry:
    """Return what a commit has at a path.

    Raises:
        PathNotFoundError: nothing; `..` and links are not followed.
        ObjectNotFoundError: a directory on the way is not in the repository.

    """
    root = repo.load_commit(commit)
    found: Entry = DirEntry("/", root.root_dirtree, root.root_dirmeta)
    for name in filter(None, path.split("/")):
        if name == ".":
            continue
        below = _child(repo, found, name) if isinstance(found, DirEntry) else None
        if below is None:
            raise PathNotFoundError(f"commit {commit}: there is no {path!r}")
        found = below
    return found


def _child(repo: Repo, directory: DirEntry, name: str) -> Entry | None:
    tree = repo.load_dirtree(directory.tree)
    path = f"{directory.path.rstrip('/')}/{name}"
    for file_name, checksum in tree.files:
        if file_name == name:
            return FileEntry(path, checksum)
    for dir_name, subtree, meta in tree.dirs:
        if dir_name == name:
            return DirEntry(path, subtree, meta)
    return None


def list_tree(repo: Repo, start: Entry, *, recursive: bool) -> Iterator[Entry]:
    """Yield an entry and what is below it, in the order of `ostree ls`.

    A directory's files come before its directories. A commit may name far more paths
    than it has objects: whoever takes all of them bounds them first.
    """
    stack = [start]
    first = True
    while stack:
        entry = stack.pop()
        yield entry
        if isinstance(entry, DirEntry) and (first or recursive):
            stack += reversed(children(repo, entry))
        first = False


def children(repo: Repo, directory: DirEntry) -> list[Entry]:
    """Return the entries of one directory, files before directories."""
    tree = repo.load_dirtree(directory.tree)
    prefix = directory.path.rstrip("/")
    entries: list[Entry] = [
        FileEntry(f"{prefix}/{name}", checksum) for name, checksum in tree.files
    ]
    entries += [
        DirEntry(f"{prefix}/{name}", subtree, meta) for name, subtree, meta in tree.dirs
    ]
    return entries


def inode(repo: Repo, entry: Entry) -> tuple[FileHeader | DirMeta, int]:
    """Return an entry's owner, mode and xattrs, and the size of its content.

    Raises:
        ObjectNotFoundError, DamagedObjectError, FormatError: its object is missing or
            not what it should be.

    """
    if isinstance(entry, FileEntry):
        with repo.open_content(entry.checksum) as reader:
            return reader.header, reader.size
    name = ObjectName(entry.meta, ObjectType.DIRMETA)
    return DirMeta.parse(repo.load_metadata(name)), 0
