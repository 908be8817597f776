"""Make a commit from a directory, with the very checksums `ostree commit` gives.

Source of the metadata's order: libostree `ot-builtin-commit.c` (fill_bindings) and
`ostree-repo-commit.c` (add_size_index_to_metadata): what the user adds, then
`ostree.ref-binding`, `ostree.collection-binding`, `ostree.sizes`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from p2p.ostree import summary
from p2p.ostree.config import RepoMode
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirTree,
    FileHeader,
    Metadata,
    ObjectName,
    ObjectType,
    parse_checksum,
    serialize_metadata,
)
from p2p.ostree.refs import head
from p2p.ostree.repo import Repo
from p2p.ostree.sizes import SIZES_KEY, ObjectSize, serialize_sizes
from p2p.ostree.source import (
    Source,
    SourceDirectory,
    SourceFile,
    SourceOptions,
    changed_error,
)
from p2p.ostree.transaction import Transaction

REF_BINDING = "ostree.ref-binding"
COLLECTION_BINDING = "ostree.collection-binding"
_FILES_A_JOB = 64
_MAX_THREADS = 8

Signer = Callable[[bytes], Metadata]
"""Returns detached metadata that signs the bytes of a `.commit` object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOptions:
    """What a commit says besides its tree.

    Attributes:
        branch: the local branch to set; None makes an orphan.
        parent: a checksum, "none", or "auto" for the branch's present commit.
        timestamp: seconds since 1970; None for now.
        metadata: entries before those that bindings and sizes add.
        detached: entries of the `.commitmeta`, before the signatures.
        bindings: whether the commit says for which refs it was made.
        bind_refs: refs it is for besides the branch.
        sizes: whether to add `ostree.sizes`; only archive repositories do.
        sign: called with the commit's bytes.

    """

    branch: str | None
    subject: str = ""
    body: str = ""
    parent: str = "auto"
    timestamp: int | None = None
    metadata: Metadata = ()
    detached: Metadata = ()
    bindings: bool = True
    bind_refs: tuple[str, ...] = ()
    sizes: bool = False
    sign: Signer | None = None


def commit_tree(
    repo: Repo,
    directory: str | os.PathLike[str],
    options: CommitOptions,
    source: SourceOptions | None = None,
) -> Checksum:
    """Commit a directory and return the commit's checksum.

    Raises:
        SourceTreeError: something in the directory cannot be committed, or changed.
        RepositoryError: the repository cannot take it, and why.
        LockedError: it stayed locked exclusively for too long.

    """
    source = source or SourceOptions()
    if repo.config.mode is RepoMode.BARE_USER_ONLY:
        source = replace(source, canonical_permissions=True)
    if repo.config.disable_xattrs:
        source = replace(source, xattrs=False)
    ref = None if options.branch is None else head(options.branch)
    if options.timestamp is None:
        options = replace(options, timestamp=int(time.time()))
    with Transaction(repo) as transaction:
        checksum = None
        while checksum is None:
            writer = TreeWriter(transaction, Source(os.fspath(directory), source))
            tree, meta = writer.write()
            data = _commit(repo, options, tree, meta, writer.sizes).serialize()
            detached = options.detached + (options.sign(data) if options.sign else ())
            checksum = transaction.publish(
                data,
                detached=serialize_metadata(detached) if detached else None,
                ref=ref,
            )
    if repo.config.update_summary:
        summary.regenerate(repo)
    return checksum


def _commit(
    repo: Repo,
    options: CommitOptions,
    tree: Checksum,
    meta: Checksum,
    sizes: Callable[[], Iterable[ObjectSize]],
) -> Commit:
    metadata = options.metadata
    if options.bindings:
        metadata += binding_metadata(repo, options)
    if options.sizes and repo.config.mode is RepoMode.ARCHIVE:
        metadata += ((SIZES_KEY, serialize_sizes(sizes())),)
    return Commit(
        root_dirtree=tree,
        root_dirmeta=meta,
        timestamp=options.timestamp or 0,
        subject=options.subject,
        body=options.body,
        parent=_parent(repo, options),
        metadata=metadata,
    )


def binding_metadata(repo: Repo, options: CommitOptions) -> Metadata:
    """Return the entries that say for which refs and collection a commit is."""
    refs = sorted(filter(None, (options.branch, *options.bind_refs)))
    entries: Metadata = ((REF_BINDING, Variant("as", tuple(refs))),)
    collection = repo.config.collection_id
    given = any(key == COLLECTION_BINDING for key, _ in options.metadata)
    if collection is not None and not given:
        entries += ((COLLECTION_BINDING, Variant("s", collection)),)
    return entries


def _parent(repo: Repo, options: CommitOptions) -> Checksum | None:
    if options.parent == "none":
        return None
    if options.parent != "auto":
        return parse_checksum(options.parent)
    return repo.refs.get(head(options.branch)) if options.branch else None


class TreeWriter:
    """Writes the objects of one directory's tree into a transaction."""

    def __init__(self, transaction: Transaction, source: Source) -> None:
        """Nothing is read yet."""
        self._transaction = transaction
        self._source = source
        self._frames: dict[FileHeader, bytes] = {}
        self._unpacked: dict[ObjectName, int] = {}

    def write(self) -> tuple[Checksum, Checksum]:
        """Return the checksums of the root's dirtree and dirmeta."""
        directories = list(self._source.directories())
        self._write_all_files(directories)
        written: dict[str, tuple[Checksum, Checksum]] = {}
        # Children come after their parents in the list.
        for directory in reversed(directories):
            written[directory.path] = self._write_directory(directory, written)
        return written[directories[0].path]

    def _write_all_files(self, directories: list[SourceDirectory]) -> None:
        jobs = (
            (directory, start)
            for directory in directories
            for start in range(0, len(directory.files), _FILES_A_JOB)
        )
        if self._transaction.repo.config.mode is not RepoMode.ARCHIVE:
            # Measured: threads only cost where nothing is deflated.
            for directory, start in jobs:
                self._write_files(directory, start)
            return
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
            for _ in pool.map(lambda job: self._write_files(*job), jobs):
                continue

    def _write_files(self, directory: SourceDirectory, start: int) -> None:
        for name in directory.files[start : start + _FILES_A_JOB]:
            file = self._source.read(directory, name)
            directory.checksums[name] = self._write_file(file)

    def _write_file(self, file: SourceFile) -> Checksum:
        if file.checksum is not None:
            return file.checksum
        header = file.header
        frame = self._frames.get(header)
        if frame is None:
            frame = header.frame()
            if not header.is_symlink:
                self._frames[header] = frame
        digest = hashlib.sha256(frame)
        if file.data is not None:
            digest.update(file.data)
        else:
            for piece in self._source.pieces(file):
                digest.update(piece)
        checksum = Checksum(digest.hexdigest())
        name = ObjectName(checksum, ObjectType.FILE)
        if not self._transaction.has(name):
            self._write_object(name, frame, file)
        self._unpacked[name] = file.size
        if file.inode is not None:
            self._source.links[file.inode] = checksum
        return checksum

    def _write_object(self, name: ObjectName, frame: bytes, file: SourceFile) -> None:
        size = 0 if file.header.is_symlink else file.size
        with self._transaction.create(file.header, size) as writer:
            if file.data is not None:
                if file.data:
                    writer.write(file.data)
            else:
                digest = hashlib.sha256(frame)
                for piece in self._source.pieces(file):
                    digest.update(piece)
                    writer.write(piece)
                if digest.hexdigest() != name.checksum:
                    raise changed_error(file.path)
            self._transaction.adopt(name, writer, size=file.size)

    def _write_directory(
        self,
        directory: SourceDirectory,
        written: dict[str, tuple[Checksum, Checksum]],
    ) -> tuple[Checksum, Checksum]:
        tree = DirTree(
            files=tuple(sorted(directory.checksums.items())),
            dirs=tuple(
                (name, *written.pop(f"{directory.path}/{name}"))
                for name in sorted(directory.dirs)
            ),
        )
        return (
            self._add_metadata(ObjectType.DIRTREE, tree.serialize()),
            self._add_metadata(ObjectType.DIRMETA, directory.meta.serialize()),
        )

    def _add_metadata(self, kind: ObjectType, data: bytes) -> Checksum:
        checksum = self._transaction.add_metadata(kind, data)
        self._unpacked[ObjectName(checksum, kind)] = len(data)
        return checksum

    def sizes(self) -> Iterator[ObjectSize]:
        """Yield the sizes of all objects written or found, for `ostree.sizes`."""
        for name, unpacked in self._unpacked.items():
            yield ObjectSize(name, self._transaction.stored_size(name), unpacked)
