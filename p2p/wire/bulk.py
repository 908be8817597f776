"""Answers that carry content: a head in the control stream, the bytes as bulk.

A head says how many bytes of bulk follow under the request's id, and how they are
divided. Where content may be compressed the head ends with `encoding`: 0 is as it
is; 1 is reserved for one zstd frame and refused by this version.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from p2p.ostree.objects import Checksum
from p2p.wire.messages import (
    Batch,
    BulkAnswer,
    CommitData,
    Map,
    Miss,
    RequestId,
    Unit,
)

NO_COMMITMETA = -1


@dataclass(frozen=True, slots=True)
class CommitDataHead:
    """Lengths of the commit and of its detached metadata, -1 for none."""

    request: RequestId
    checksum: Checksum
    commit_bytes: int
    commitmeta_bytes: int

    @property
    def bulk_bytes(self) -> int:
        """How much bulk follows."""
        return self.commit_bytes + max(0, self.commitmeta_bytes)


@dataclass(frozen=True, slots=True)
class BatchHead:
    """For each object its length, or a `Miss`."""

    request: RequestId
    lengths: tuple[int, ...]
    encoding: int = 0

    @property
    def bulk_bytes(self) -> int:
        """How much bulk follows."""
        return sum([length for length in self.lengths if length > 0])


@dataclass(frozen=True, slots=True)
class UnitHead:
    """Length of the bytes."""

    request: RequestId
    length: int
    encoding: int = 0

    @property
    def bulk_bytes(self) -> int:
        """How much bulk follows."""
        return self.length


@dataclass(frozen=True, slots=True)
class MapHead:
    """Length of the bitmap; 0 says that the commit is complete."""

    request: RequestId
    bitmap_bytes: int

    @property
    def bulk_bytes(self) -> int:
        """How much bulk follows."""
        return self.bitmap_bytes


Head = CommitDataHead | BatchHead | UnitHead | MapHead


def split(answer: BulkAnswer) -> tuple[Head, list[bytes]]:
    """Return the head of an answer and its bulk, uncopied."""
    request = answer.request
    match answer:
        case CommitData(commit=commit, commitmeta=meta):
            head = CommitDataHead(
                request,
                answer.checksum,
                len(commit),
                NO_COMMITMETA if meta is None else len(meta),
            )
            return head, [commit, meta or b""]
        case Batch(objects=objects):
            lengths = [int(o) if isinstance(o, Miss) else len(o) for o in objects]
            pieces = [o for o in objects if not isinstance(o, Miss)]
            return BatchHead(request, tuple(lengths)), pieces
        case Unit(data=data):
            return UnitHead(request, len(data)), [data]
        case Map(bitmap=bitmap):
            return MapHead(request, len(bitmap or b"")), [bitmap or b""]
    assert_never(answer)


def join(head: Head, data: bytearray) -> BulkAnswer:
    """Return the answer made of a head and all of its bulk."""
    match head:
        case CommitDataHead(request, checksum, size, meta):
            commit, rest = _cut(data, (size, max(0, meta)))
            return CommitData(request, checksum, commit, None if meta < 0 else rest)
        case BatchHead(request, lengths):
            found = iter(_cut(data, [length for length in lengths if length >= 0]))
            return Batch(
                request,
                tuple([Miss(n) if n < 0 else next(found) for n in lengths]),
            )
        case UnitHead(request):
            return Unit(request, bytes(data))
        case MapHead(request, size):
            return Map(request, bytes(data) if size else None)
    assert_never(head)


def _cut(data: bytearray, lengths: Iterable[int]) -> list[bytes]:
    pieces = []
    start = 0
    with memoryview(data) as view:
        for length in lengths:
            pieces.append(bytes(view[start : start + length]))
            start += length
    return pieces
