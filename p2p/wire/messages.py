"""The messages, the same classes in both directions; docs/protocol.md explains each.

A request carries an id that its sender never used before. It gets exactly one
terminal answer. Content is in its canonical form: the bytes the checksum covers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, NewType

from p2p.ostree.objects import Checksum, ObjectName, ObjectType, raw
from p2p.wire.limits import OPEN_NAMES, OPEN_REQUESTS, PREFIX_BYTES

RequestId = NewType("RequestId", int)
"""Number of a request, counted by the side that asks."""

DeviceId = NewType("DeviceId", str)
"""Who a peer is: SHA-256 of its public key as 64 lower-case hexadecimal digits."""

ALPN = "ostree-p2p/1"
"""Names the protocol and its major version in the TLS handshake."""

MINOR_VERSION = 0

# -- the session -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First message of both sides; the session is up when it was received.

    Attributes:
        instance: 16 random bytes a process chooses when it starts.
        epoch: counter that outlives the process; with `seq` it orders records.
        seen_epoch: epoch of the last record the sender saw of the receiver, or 0.
        seen_seq: its seq.
        max_requests: how many requests the receiver may leave open.
        max_names: how many names those may hold together; see `Request` costs.
        port: TCP port the sender listens on, 0 for none.
        dial: counts the dials of this process from 1; 0 from who accepted.
        signing_key: Ed25519 public key that the sender signs lists of unit hashes
            with; empty if it signs none.

    """

    software: str
    site: str
    instance: bytes
    epoch: int
    dial: int
    port: int = 0
    seen_epoch: int = 0
    seen_seq: int = 0
    max_requests: int = OPEN_REQUESTS
    max_names: int = OPEN_NAMES
    signing_key: bytes = b""
    abilities: frozenset[str] = frozenset()
    minor: int = MINOR_VERSION


class Farewell(IntEnum):
    """Why a side ends the session."""

    OTHER = 0
    LEAVING = 1
    DUPLICATE = 2
    PROTOCOL = 3
    MISBEHAVED = 4
    IDLE = 5
    OVERLOADED = 6


@dataclass(frozen=True, slots=True)
class Bye:
    """Last message of its sender; open requests of both sides end with it."""

    reason: Farewell
    text: str = ""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a PONG with the same token; one may wait for its answer."""

    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to PING; the Connection sends it by itself."""

    token: int


# -- what I have: state, replaced as a whole -------------------------------------------


class Held(IntEnum):
    """How much of a commit a peer holds."""

    COMPLETE = 1
    PARTIAL = 2
    """All metadata is there, so that WATCH is answered with a map."""
    BEGUN = 3
    """Metadata is still missing; ASK tells what is there."""


class HeldCommit(NamedTuple):
    """A commit the sender shares, and how much of it."""

    commit: Checksum
    held: Held


class HeldRef(NamedTuple):
    """A ref the sender shares; `collection` is empty outside collections."""

    ref: str
    collection: str
    commit: Checksum


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that the sender shares, at commit grain; `more` if not all fits."""

    commits: tuple[HeldCommit, ...] = ()
    refs: tuple[HeldRef, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A member's signed record, passed on as it is; later (epoch, seq) replaces.

    Attributes:
        body: what `p2p.wire.record` makes.
        age: seconds since the member said it, as far as the sender knows.

    """

    member: DeviceId
    epoch: int
    seq: int
    body: bytes
    age: int = 0


class Version(NamedTuple):
    """Whose record, and which one of it."""

    member: DeviceId
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """Which records the sender has; the receiver sends what is newer or missing.

    Attributes:
        first, last: it is about the members from one to the other, both included.
        versions: all records of theirs that the sender has.
        is_answer: it answers one, and wants none in return.

    """

    first: DeviceId
    last: DeviceId
    versions: tuple[Version, ...]
    is_answer: bool


# -- requests --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetHead:
    """Asks for the commit that a ref names; answered by COMMIT_DATA."""

    request: RequestId
    ref: str
    collection: str = ""


@dataclass(frozen=True, slots=True)
class GetCommit:
    """Asks for a commit and its signatures; answered by COMMIT_DATA."""

    request: RequestId
    commit: Checksum


class Prefix(NamedTuple):
    """An object's kind and the first 8 bytes of its checksum."""

    type: ObjectType
    start: bytes


def prefix_of(name: ObjectName) -> Prefix:
    """Return what ASK calls this object."""
    return Prefix(name.type, raw(name.checksum)[:PREFIX_BYTES])


@dataclass(frozen=True, slots=True)
class Ask:
    """Asks which of these objects are there and how long they are: SIZES."""

    request: RequestId
    prefixes: tuple[Prefix, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """Asks for whole objects, together at most `max_bytes`: BATCH."""

    request: RequestId
    max_bytes: int
    names: tuple[ObjectName, ...]


@dataclass(frozen=True, slots=True)
class GetUnit:
    """Asks for bytes of one object: UNIT, shorter only at the object's end."""

    request: RequestId
    name: ObjectName
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class GetHashes:
    """Asks for the SHA-256 of units `first` to `first + count - 1`: HASHES."""

    request: RequestId
    name: ObjectName
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Asks for the map of a commit and what is added to it, until CANCEL.

    Attributes:
        objects: size of the commit's closure as the watcher counted it.

    """

    request: RequestId
    commit: Checksum
    objects: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Withdraws a request of the sender; its terminal answer still comes."""

    request: RequestId


# -- answers ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CommitData:
    """A commit object and its detached metadata, None where there is none."""

    request: RequestId
    checksum: Checksum
    commit: bytes
    commitmeta: bytes | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """For each prefix asked: length of the canonical form, None if not here."""

    request: RequestId
    sizes: tuple[int | None, ...]


class Miss(IntEnum):
    """Why an object of a WANT is not in the BATCH."""

    NOT_HAVE = -1
    TOO_LARGE = -2
    """Alone longer than `max_bytes`: ask for units."""
    OMITTED = -3
    """There, but the batch was full: ask again."""
    ELSEWHERE = -4
    """Given away, and to be had from whoever got it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """For each object of a WANT its bytes, or why not.

    Attributes:
        frame: all bytes as one zstd frame, if that is how they travel.

    """

    request: RequestId
    objects: tuple[bytes | Miss, ...]
    frame: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def content(self) -> list[bytes]:
        """The objects that are there."""
        return [each for each in self.objects if not isinstance(each, Miss)]


@dataclass(frozen=True, slots=True)
class Unit:
    """Bytes of a GET_UNIT; `frame` as in `Batch`."""

    request: RequestId
    data: bytes
    frame: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def content(self) -> list[bytes]:
        """The bytes."""
        return [self.data]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """Unit hashes of an object, signed by who made the list.

    Attributes:
        size: length of the object's canonical form.
        first: index of the first unit in `hashes`.
        hashes: SHA-256 of each unit, 32 bytes each.
        signer: Ed25519 public key of who made the list. It stands for the device
            that announced it as its `signing_key`.
        signature: over `p2p.wire.hashes.statement`; not checked here.

    """

    request: RequestId
    size: int
    first: int
    hashes: bytes
    signer: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Map:
    """What of a watched commit is here: a bitmap of its closure, None for all."""

    request: RequestId
    bitmap: bytes | None = None


@dataclass(frozen=True, slots=True)
class Have:
    """Objects of a watched commit, by closure index, that came since.

    The Connection merges, sorts and divides them into messages as needed.
    """

    request: RequestId
    indices: tuple[int, ...]


class UnitMap(NamedTuple):
    """A large object by its number in the closure, and all its units that are here."""

    number: int
    bitmap: bytes


@dataclass(frozen=True, slots=True)
class Units:
    """Which units of some large objects of a watched commit are here.

    What is said of an object replaces what was said of it before. The Connection
    merges and divides them into messages as needed.
    """

    request: RequestId
    objects: tuple[UnitMap, ...]


@dataclass(frozen=True, slots=True)
class NotHave:
    """Terminal: it is not here."""

    request: RequestId


class Refusal(IntEnum):
    """Why a request was not answered with content."""

    OTHER = 0
    NOT_SHARED = 1
    RANGE = 2
    """An offset or index past the end, or another closure than the asker's."""
    DAMAGED = 3
    LEAVING = 4
    UNSUPPORTED = 5


@dataclass(frozen=True, slots=True)
class Rejected:
    """Terminal: it will not be answered; asking again does not help."""

    request: RequestId
    reason: Refusal
    text: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Terminal: the request was withdrawn; the Connection sends it by itself."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Terminal: given to that peer a moment ago; ask there."""

    request: RequestId
    peer: DeviceId


@dataclass(frozen=True, slots=True)
class Busy:
    """Terminal: not now; ask again after so many milliseconds."""

    request: RequestId
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Status:
    """A sign of life while a request waits: bytes queued before it, bytes/s."""

    request: RequestId
    queued_bytes: int
    rate: int


Request = GetHead | GetCommit | Ask | Want | GetUnit | GetHashes | Watch
"""Opens an exchange."""

BulkAnswer = CommitData | Batch | Unit | Map
"""Carries content outside MessagePack."""

PlainAnswer = Sizes | Hashes | NotHave | Rejected | Cancelled | Elsewhere | Busy
"""Terminal and without bulk."""

Update = Have | Units
"""Follows the MAP of a WATCH."""

Message = (
    Hello
    | Bye
    | Ping
    | Pong
    | Holdings
    | Record
    | Digest
    | Request
    | Cancel
    | BulkAnswer
    | PlainAnswer
    | Update
    | Status
)
