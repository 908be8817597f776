"""Answers that carry content: a head in the control stream, the bytes as bulk.

A head says how many bytes of bulk follow under the request's id, and how they are
divided. Where content may be compressed the head ends with the length of the zstd
frame that follows instead, 0 if it follows as it is.
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
from p2p.wire.packing import unpack

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
    """For each object its length, or a `Miss`; the length of the frame, 0 for none."""

    request: RequestId
    lengths: tuple[int, ...]
    frame_bytes: int = 0

    @property
    def content_bytes(self) -> int:
        """How long all objects are together."""
        return sum([length for length in self.lengths if length > 0])

    @property
    def bulk_bytes(self) -> int:
        """How much bulk follows."""
        return self.frame_bytes or self.content_bytes


@dataclass(frozen=True, slots=True)
class UnitHead:
    """Length of the bytes, and of the frame, 0 for none."""

    request: RequestId
    length: int
    frame_bytes: int = 0

    @property
    def content_bytes(self) -> int:
        """How long the unit is."""
        return self.length

    @property
    def bulk_bytes(self) -> int:
        """How much bulk follows."""
        return self.frame_bytes or self.length


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
        case Batch(objects=objects, frame=frame):
            lengths = [int(o) if isinstance(o, Miss) else len(o) for o in objects]
            return (
                BatchHead(request, tuple(lengths), len(frame or b"")),
                answer.content if frame is None else [frame],
            )
        case Unit(data=data, frame=frame):
            return (
                UnitHead(request, len(data), len(frame or b"")),
                [data] if frame is None else [frame],
            )
        case Map(bitmap=bitmap):
            return MapHead(request, len(bitmap or b"")), [bitmap or b""]
    assert_never(answer)


def join(head: Head, data: bytearray) -> BulkAnswer:
    """Return the answer made of a head and all of its bulk.

    Raises:
        RuleError: that is a frame, and not one of the content that the head tells.

    """
    frame = None
    match head:
        case CommitDataHead(request, checksum, size, meta):
            commit, rest = _cut(data, (size, max(0, meta)))
            return CommitData(request, checksum, commit, None if meta < 0 else rest)
        case BatchHead(request, lengths, frame_bytes):
            content: bytes | bytearray = data
            if frame_bytes:
                frame = bytes(data)
                content = unpack(frame, head.content_bytes)
            found = iter(_cut(content, [length for length in lengths if length >= 0]))
            objects = tuple([Miss(n) if n < 0 else next(found) for n in lengths])
            return Batch(request, objects, frame)
        case UnitHead(request, length, frame_bytes):
            if not frame_bytes:
                return Unit(request, bytes(data))
            frame = bytes(data)
            return Unit(request, unpack(frame, length), frame)
        case MapHead(request, size):
            return Map(request, bytes(data) if size else None)
    assert_never(head)


def _cut(data: bytes | bytearray, lengths: Iterable[int]) -> list[bytes]:
    pieces = []
    start = 0
    with memoryview(data) as view:
        for length in lengths:
            pieces.append(bytes(view[start : start + length]))
            start += length
    return pieces
