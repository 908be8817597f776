"""The `summary` file: which refs a repository has, for clients that cannot list them.

Format: `(a(s(taya{sv}))a{sv})`; source: libostree `ostree-repo.c`
(ostree_repo_regenerate_summary) and `ot-builtin-summary.c`. The size of a commit is
the only little-endian number of OSTree's; timestamps are big-endian as elsewhere.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from p2p.errors import FormatError, LimitError
from p2p.ostree import deltas
from p2p.ostree.disk import write_file, writing
from p2p.ostree.glib_order import glib_dictionary
from p2p.ostree.gvariant import Variant, codec
from p2p.ostree.objects import (
    Checksum,
    Commit,
    Metadata,
    ObjectName,
    ObjectType,
    from_raw,
    lookup,
    raw,
    swap64,
)
from p2p.ostree.refs import check_ref
from p2p.ostree.repo import Repo

MAX_SUMMARY_BYTES = 32 << 20
"""Larger ones are refused; that of a large application store has some 10 MiB."""

TIMESTAMP_KEY = "ostree.commit.timestamp"
COLLECTION_KEY = "ostree.summary.collection-id"
COLLECTION_MAP_KEY = "ostree.summary.collection-map"
_REFS = "a(s(taya{sv}))"
_COLLECTION_MAP = f"a{{s{_REFS}}}"
_SUMMARY = codec(f"({_REFS}a{{sv}})")


@dataclass(frozen=True, slots=True)
class SummaryRef:
    """What a summary says of one ref; `size` is that of the commit object in bytes."""

    ref: str
    commit: Checksum
    size: int
    metadata: Metadata = ()

    @property
    def timestamp(self) -> int | None:
        """When the commit was made, as the summary claims, in seconds since 1970."""
        value = lookup(self.metadata, TIMESTAMP_KEY, "t")
        return None if value is None else swap64(value)


@dataclass(frozen=True, slots=True)
class Summary:
    """A parsed summary; nothing vouches for it but a signature beside it."""

    refs: tuple[SummaryRef, ...] = ()
    metadata: Metadata = ()

    @property
    def collection_id(self) -> str | None:
        """The collection that `refs` belong to, if the repository has one."""
        collection: str | None = lookup(self.metadata, COLLECTION_KEY, "s")
        return collection

    def find(self, ref: str, *, collection: str | None = None) -> SummaryRef | None:
        """Return what is said of a ref, in another collection if that is named."""
        refs: Iterable[SummaryRef] = self.refs
        if collection is not None and collection != self.collection_id:
            refs = self.collections().get(collection, ())
        return next((entry for entry in refs if entry.ref == ref), None)

    def collections(self) -> dict[str, tuple[SummaryRef, ...]]:
        """Return the refs of other collections that are mirrored here."""
        found = lookup(self.metadata, COLLECTION_MAP_KEY, _COLLECTION_MAP) or ()
        return {collection: _parse_refs(refs) for collection, refs in found}

    def serialize(self) -> bytes:
        """Return the bytes of the file."""
        return _SUMMARY.encode((_refs_value(self.refs), self.metadata))


def parse_summary(data: bytes) -> Summary:
    """Return the summary in data.

    Raises:
        FormatError: it is not one, is not in normal form, or names hostile refs.
        LimitError: it is larger than any real one.

    """
    if len(data) > MAX_SUMMARY_BYTES:
        raise LimitError(f"summary of {len(data)} bytes")
    refs, metadata = _SUMMARY.decode(data)
    summary = Summary(_parse_refs(refs), metadata)
    summary.collections()
    return summary


def _parse_refs(entries: Iterable[Any]) -> tuple[SummaryRef, ...]:
    refs = tuple(
        SummaryRef(check_ref(ref), from_raw(commit), size, metadata)
        for ref, (size, commit, metadata) in entries
    )
    names = [entry.ref for entry in refs]
    if any(a >= b for a, b in itertools.pairwise(names)):
        raise FormatError("summary: refs are not in order")
    return refs


def _refs_value(refs: Iterable[SummaryRef]) -> tuple[Any, ...]:
    return tuple(
        (entry.ref, (entry.size, raw(entry.commit), entry.metadata)) for entry in refs
    )


# -- writing -----------------------------------------------------------------------


def regenerate(
    repo: Repo, *, timestamp: int | None = None, metadata: Metadata = ()
) -> Summary:
    """Write the summary of a repository anew; a signature of the old one goes.

    Args:
        repo: the repository; remotes' refs are left out.
        timestamp: seconds since 1970 to give as time of the change; None for now.
        metadata: entries to add.

    Raises:
        ObjectNotFoundError: a ref names a commit that is not here.
        ReadOnlyError, NoSpaceError: as the disk says.

    """
    now = int(time.time()) if timestamp is None else timestamp
    main = repo.config.collection_id
    collections = _collection_refs(repo)
    heads = {ref.split("/", 1)[1]: commit for ref, commit in repo.refs.all("heads/")}
    if main is not None:
        heads.update(collections.pop(main, {}))
    # In the order of libostree, which shows where the hash table had collisions.
    entries = dict(metadata)
    if found := _listed_deltas(repo):
        entries["ostree.static-deltas"] = Variant("a{sv}", glib_dictionary(found))
    entries["ostree.summary.last-modified"] = Variant("t", swap64(now))
    entries["ostree.summary.mode"] = Variant("s", str(repo.config.mode))
    entries["ostree.summary.tombstone-commits"] = Variant(
        "b", repo.config.tombstone_commits
    )
    entries["ostree.summary.indexed-deltas"] = Variant("b", True)
    if main is not None:
        entries[COLLECTION_KEY] = Variant("s", main)
    if collections:
        refs = {name: _entries(repo, heads) for name, heads in collections.items()}
        value = tuple((name, _refs_value(refs[name])) for name in sorted(refs))
        entries[COLLECTION_MAP_KEY] = Variant(_COLLECTION_MAP, value)
    summary = Summary(_entries(repo, heads), glib_dictionary(entries))
    _write(repo, summary.serialize())
    return summary


def keep_summary(repo: Repo, data: bytes, signature: bytes | None) -> None:
    """Make another repository's summary, with its signature, that of a mirror.

    Raises:
        FormatError, LimitError: it is none.
        ReadOnlyError, NoSpaceError: as the disk says.

    """
    parse_summary(data)
    _write(repo, data)
    if signature is not None:
        with writing(repo.path):
            path = os.path.join(repo.path, "summary.sig")
            write_file(path, signature, fsync=repo.config.fsync)


def _listed_deltas(repo: Repo) -> dict[str, Variant]:
    if repo.keys.boolean("core", "no-deltas-in-summary", default=False):
        return {}
    return {
        name: Variant("ay", raw(digest))
        for name, digest in deltas.superblock_checksums(repo)
    }


def _collection_refs(repo: Repo) -> dict[str, dict[str, Checksum]]:
    found: dict[str, dict[str, Checksum]] = {}
    for path, commit in repo.refs.all("mirrors/"):
        _, collection, ref = path.split("/", 2)
        found.setdefault(collection, {})[ref] = commit
    return found


def _entries(repo: Repo, refs: dict[str, Checksum]) -> tuple[SummaryRef, ...]:
    return tuple(_entry(repo, ref, commit) for ref, commit in sorted(refs.items()))


def _entry(repo: Repo, ref: str, commit: Checksum) -> SummaryRef:
    data = repo.load_metadata(ObjectName(commit, ObjectType.COMMIT))
    timestamp = Variant("t", swap64(Commit.parse(data).timestamp))
    return SummaryRef(ref, commit, len(data), ((TIMESTAMP_KEY, timestamp),))


def _write(repo: Repo, data: bytes) -> None:
    with writing(repo.path):
        path = os.path.join(repo.path, "summary")
        write_file(path, data, fsync=repo.config.fsync)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.sig")
