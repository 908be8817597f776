"""What happened, in the past tense: the only input of the scheduler.

`peer` is always a neighbour: a device with a session to us. `request` is the number
the scheduler gave its request; how the session calls it is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from p2p.ostree.objects import Checksum, ObjectName
from p2p.swarm.tuning import Limits
from p2p.wire.limits import OPEN_NAMES, OPEN_REQUESTS
from p2p.wire.messages import DeviceId, HeldCommit, Miss, RequestId
from p2p.wire.record import Claim
from p2p.wire.record import OriginState as OriginState  # noqa: PLC0414 - also ours

# -- neighbours and what they have -------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """A session is up: both sides said HELLO.

    Attributes:
        max_requests, max_names: how much it said there that it lets us leave open.

    """

    peer: DeviceId
    max_requests: int = OPEN_REQUESTS
    max_names: int = OPEN_NAMES


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """The session is over, whyever; its open requests ended with it."""

    peer: DeviceId


@dataclass(frozen=True, slots=True)
class HoldingsChanged:
    """All commits a neighbour shares, and how much of each."""

    peer: DeviceId
    commits: tuple[HeldCommit, ...]


class UnitsHad(NamedTuple):
    """All units of a large object that are there, as a set of `swarm.bits`."""

    name: ObjectName
    units: int


@dataclass(frozen=True, slots=True)
class HaveChanged:
    """A neighbour has these too.

    Attributes:
        units: of large objects; each replaces what was said of the same object.
        mapped: the names are the whole map of this watched commit.

    """

    peer: DeviceId
    names: Sequence[ObjectName] = ()
    units: tuple[UnitsHad, ...] = ()
    mapped: Checksum | None = None


@dataclass(frozen=True, slots=True)
class AskAnswered:
    """For each name of an `Ask` its size, or None where it is absent; terminal."""

    peer: DeviceId
    request: RequestId
    sizes: Sequence[int | None]


@dataclass(frozen=True, slots=True)
class SizesReported:
    """Sizes of canonical forms that the publisher signed (`ostree.sizes`)."""

    sizes: Sequence[tuple[ObjectName, int]]


# -- the site beyond our neighbours -------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemberSaid:
    """A member of the site, neighbour or not, said this of itself `age` seconds ago."""

    member: DeviceId
    claim: Claim
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class MemberGone:
    """A member was not heard of for so long that it is none any more."""

    member: DeviceId


# -- what we want ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """A commit needs these; they are found as its directories arrive."""

    commit: Checksum
    names: Sequence[ObjectName]


@dataclass(frozen=True, slots=True)
class ClosureKnown:
    """All objects of a commit were `Wanted`: its maps can be read."""

    commit: Checksum


@dataclass(frozen=True, slots=True)
class Unwanted:
    """A commit is not wanted any more, nor what only it needs."""

    commit: Checksum


@dataclass(frozen=True, slots=True)
class AlreadyHere:
    """These wanted objects are in the repository or its staging store."""

    names: Sequence[ObjectName]


# -- deliveries by neighbours ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataArrived:
    """Content came from a neighbour, at least told every 64 KiB or 100 ms.

    Told before whatever it completes. Rates are measured by this alone.
    """

    peer: DeviceId
    byte_count: int


@dataclass(frozen=True, slots=True)
class ObjectsDelivered:
    """Whole objects with their sizes, not verified yet."""

    peer: DeviceId
    request: RequestId
    objects: tuple[tuple[ObjectName, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HashesDelivered:
    """Unit hashes of a large object; their signature was checked.

    Attributes:
        size: of the object's canonical form, as the author says.
        first, count: which units the page is about.
        author: who signed them; None if they came with the signed commit.

    """

    peer: DeviceId
    request: RequestId
    size: int
    first: int
    count: int
    author: DeviceId | None


@dataclass(frozen=True, slots=True)
class UnitDelivered:
    """A unit whose hash is that of the list in force."""

    peer: DeviceId
    request: RequestId


@dataclass(frozen=True, slots=True)
class UnitRejected:
    """A unit whose hash or length is not that of the list in force."""

    peer: DeviceId
    request: RequestId


class Outcome(Enum):
    """The terminal answer of a request."""

    DONE = "answered"
    NOT_HAVE = "not have"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    ELSEWHERE = "elsewhere"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """The terminal answer, after everything that was delivered for it.

    Attributes:
        misses: why objects of a batch are not in it; OMITTED for those not named.
        seconds: how long a busy neighbour wants to be left alone.

    """

    peer: DeviceId
    request: RequestId
    outcome: Outcome
    misses: tuple[tuple[ObjectName, Miss], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StatusReported:
    """A sign of life while a request waits: bytes queued before it, bytes/s."""

    peer: DeviceId
    queued_bytes: int
    rate: float


@dataclass(frozen=True, slots=True)
class MisbehaviourSeen:
    """The session found a certain offence; it ends."""

    peer: DeviceId


# -- the writer's judgement --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ObjectsVerified:
    """The writer has them: their checksums are right and they can be served."""

    names: Sequence[ObjectName]


@dataclass(frozen=True, slots=True)
class ObjectRejected:
    """An object's bytes have another checksum, or are no such object."""

    name: ObjectName


# -- the origin --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OriginStateChanged:
    """The origin is usable for us, or not; if BUSY, for so long, and then OK again."""

    state: OriginState
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class OriginProgressed:
    """So many bytes of an object came from the origin so far."""

    name: ObjectName
    byte_count: int


@dataclass(frozen=True, slots=True)
class OriginDelivered:
    """The origin gave an object, not verified yet.

    Attributes:
        size: how much was received.
        is_canonical: whether that is the size of the canonical form.

    """

    name: ObjectName
    size: int
    is_canonical: bool = True


class Failure(Enum):
    """Why the origin did not give an object."""

    NOT_FOUND = "not there"
    DAMAGED = "damaged"
    TRANSIENT = "failed for now"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class OriginFailed:
    """The origin did not give an object; terminal for this fetch."""

    name: ObjectName
    failure: Failure


@dataclass(frozen=True, slots=True)
class LimitsChanged:
    """The operator or the machine allows more or less."""

    limits: Limits


Event = (
    PeerJoined
    | PeerLeft
    | HoldingsChanged
    | HaveChanged
    | AskAnswered
    | SizesReported
    | Wanted
    | ClosureKnown
    | Unwanted
    | AlreadyHere
    | DataArrived
    | ObjectsDelivered
    | HashesDelivered
    | UnitDelivered
    | UnitRejected
    | RequestEnded
    | StatusReported
    | MisbehaviourSeen
    | ObjectsVerified
    | ObjectRejected
    | OriginStateChanged
    | MemberSaid
    | MemberGone
    | OriginProgressed
    | OriginDelivered
    | OriginFailed
    | LimitsChanged
)
