"""Small commits made in memory, with all their objects in canonical form."""

import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from p2p.ostree.config import RepoMode
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    ObjectName,
    ObjectType,
    Xattrs,
    checksum_of,
)
from p2p.ostree.repo import Repo

TIME = 1_700_000_000
MODES = [
    RepoMode.ARCHIVE,
    pytest.param(RepoMode.BARE, marks=pytest.mark.root),
    RepoMode.BARE_USER,
    RepoMode.BARE_USER_ONLY,
]

Tree = Mapping[str, "bytes | str | Tree"]
"""Names with the content of files, the targets of links, or directories."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A commit with every object it needs; the commit itself is one of them."""

    checksum: Checksum
    objects: dict[ObjectName, bytes]

    @property
    def name(self) -> ObjectName:
        return ObjectName(self.checksum, ObjectType.COMMIT)

    @property
    def data(self) -> bytes:
        """The bytes of the `.commit`."""
        return self.objects[self.name]

    @property
    def commit(self) -> Commit:
        return Commit.parse(self.data)

    @property
    def content(self) -> dict[ObjectName, bytes]:
        """Everything below the commit."""
        return {n: d for n, d in self.objects.items() if n != self.name}


def file_object(
    content: bytes = b"",
    *,
    mode: int = 0o644,
    target: str = "",
    owner: tuple[int, int] = (0, 0),
    xattrs: Xattrs = (),
) -> tuple[ObjectName, bytes]:
    """A file, or a link where there is a target: its name and canonical form."""
    kind = stat.S_IFLNK | 0o777 if target else stat.S_IFREG | mode
    header = FileHeader(*owner, kind, target, xattrs)
    data = header.frame() + content
    return ObjectName(checksum_of(data), ObjectType.FILE), data


def filez(content: bytes, *, claimed: int | None = None) -> bytes:
    """A `.filez` as another program may have packed it."""
    header = FileHeader(0, 0, 0o100644)
    size = len(content) if claimed is None else claimed
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return header.serialize_filez(size) + deflater.compress(content) + deflater.flush()


def sample(
    tree: Tree,
    *,
    refs: tuple[str, ...] = ("main",),
    parent: Sample | None = None,
    timestamp: int = TIME,
    collection: str | None = None,
) -> Sample:
    """A commit of this tree, bound to the refs and the collection."""
    objects: dict[ObjectName, bytes] = {}
    metadata = [("ostree.ref-binding", Variant("as", refs))]
    if collection is not None:
        metadata.append(("ostree.collection-binding", Variant("s", collection)))
    root, meta = _directory(tree, objects)
    data = Commit(
        root_dirtree=root,
        root_dirmeta=meta,
        timestamp=timestamp,
        parent=parent.checksum if parent else None,
        metadata=tuple(metadata),
    ).serialize()
    return Sample(_add(objects, ObjectType.COMMIT, data), objects)


def _directory(
    tree: Tree, objects: dict[ObjectName, bytes]
) -> tuple[Checksum, Checksum]:
    files, directories = [], []
    for name, entry in sorted(tree.items()):
        if isinstance(entry, Mapping):
            directories.append((name, *_directory(entry, objects)))
            continue
        if isinstance(entry, str):
            key, data = file_object(target=entry)
        else:
            key, data = file_object(entry)
        objects[key] = data
        files.append((name, key.checksum))
    dirtree = DirTree(tuple(files), tuple(directories)).serialize()
    dirmeta = DirMeta(0, 0, stat.S_IFDIR | 0o755).serialize()
    return (
        _add(objects, ObjectType.DIRTREE, dirtree),
        _add(objects, ObjectType.DIRMETA, dirmeta),
    )


def _add(objects: dict[ObjectName, bytes], kind: ObjectType, data: bytes) -> Checksum:
    checksum = checksum_of(data)
    objects[ObjectName(checksum, kind)] = data
    return checksum


TREE: Tree = {
    "etc": {"hostname": b"sample\n"},
    "usr": {"bin": {"hello": b"#!/bin/sh\n" * 300, "hi": "hello"}, "empty": b""},
    "again": {"bin": {"hello": b"#!/bin/sh\n" * 300, "hi": "hello"}, "empty": b""},
}
SAMPLE = sample(TREE)


def make_repo(path: str, mode: RepoMode, settings: Mapping[str, str] = {}) -> Repo:
    """A repository with the remote `o` that asks for no signature."""
    repo = Repo.init(path, mode)
    repo.keys.set('remote "o"', "url", "http://localhost/")
    repo.keys.set('remote "o"', "gpg-verify", "false")
    for key, value in settings.items():
        repo.keys.set("core", key, value)
    repo.save_config()
    return Repo.open(path)
