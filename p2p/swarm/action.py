"""What to do, in the imperative: the only output of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from p2p.ostree.objects import Checksum, ObjectName
from p2p.wire.messages import DeviceId, RequestId
from p2p.wire.record import Claim

# -- requests to neighbours: each gets one terminal answer -----------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a neighbour which of these it has: `AskAnswered`."""

    peer: DeviceId
    request: RequestId
    names: tuple[ObjectName, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """Ask for the map of a commit and its updates: `HaveChanged`, until it ends."""

    peer: DeviceId
    request: RequestId
    commit: Checksum


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """Ask for whole objects, together at most `max_bytes`."""

    peer: DeviceId
    request: RequestId
    names: tuple[ObjectName, ...]
    max_bytes: int


@dataclass(frozen=True, slots=True)
class RequestHashes:
    """Ask for the hashes of up to `count` units of a large object, from `first` on."""

    peer: DeviceId
    request: RequestId
    name: ObjectName
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class RequestUnit:
    """Ask for one unit of a large object."""

    peer: DeviceId
    request: RequestId
    name: ObjectName
    unit: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Withdraw a request; its terminal answer still comes."""

    peer: DeviceId
    request: RequestId


class Blame(Enum):
    """Why a neighbour is dropped."""

    WRONG_BYTES = "sent bytes with another checksum"
    WRONG_SIZE = "sent an object of another size than the publisher signed"
    UNREQUESTED = "sent what nobody asked for"
    FALSE_HASHES = "signed false unit hashes"
    PROTOCOL = "broke the protocol"
    SILENT = "does not answer"
    FORGED_RECORD = "passed on what a member never said"
    USELESS = "claims what it does not deliver"


@dataclass(frozen=True, slots=True)
class DropPeer:
    """End the session; `banned` until this update is over: a certain offence.

    The device need not be a neighbour: false hashes may come through relays.
    """

    peer: DeviceId
    blame: Blame
    banned: bool


# -- what was delivered ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    """Give these to the writer; whatever else was delivered is thrown away."""

    names: tuple[ObjectName, ...]
    giver: DeviceId | None


@dataclass(frozen=True, slots=True)
class AcceptHashes:
    """Check units against this page of hashes; whatever else was said counts nothing.

    Attributes:
        peer, request: the answer that brought it.
        first: its first unit; 0 begins a new list.
        author: who vouches for it; None if the publisher does.

    """

    peer: DeviceId
    request: RequestId
    name: ObjectName
    size: int
    first: int
    author: DeviceId | None


@dataclass(frozen=True, slots=True)
class AcceptUnit:
    """Keep this unit until the object is complete."""

    name: ObjectName
    unit: int


@dataclass(frozen=True, slots=True)
class Assemble:
    """All units of an object are here: give it to the writer."""

    name: ObjectName


@dataclass(frozen=True, slots=True)
class DiscardUnits:
    """The units of this object are not needed any more, or were false."""

    name: ObjectName


# -- the origin --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FetchFromOrigin:
    """Get an object from the origin: `OriginDelivered` or `OriginFailed`."""

    name: ObjectName


@dataclass(frozen=True, slots=True)
class CancelOrigin:
    """It comes from elsewhere; its end is still told."""

    name: ObjectName


@dataclass(frozen=True, slots=True)
class ShareOrigin:
    """Fetch at no more than these bytes/s from now on: our part of the site's rate."""

    rate: float | None


# -- what others should know -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnnounceHave:
    """Tell whoever watches that these are here now.

    Attributes:
        arriving: large objects of which more units are here.

    """

    names: tuple[ObjectName, ...]
    arriving: tuple[ObjectName, ...] = ()


@dataclass(frozen=True, slots=True)
class AnnounceMember:
    """Tell every member what we get, and what we are doing at the origin.

    The caller adds what else it says of itself: addresses, and what is complete.

    Attributes:
        is_urgent: others wait for it; else it may wait until we speak anyway.

    """

    claim: Claim
    is_urgent: bool = True


class Reason(Enum):
    """Why an object cannot be had now."""

    NO_SOURCE = "no neighbour has it and the origin cannot be used"
    NOT_AT_ORIGIN = "no neighbour has it and the origin does not"
    DAMAGED = "no neighbour has it and the origin's copy is damaged"


@dataclass(frozen=True, slots=True)
class ReportStuck:
    """All objects that cannot be had for this reason now; none: not any more."""

    names: tuple[ObjectName, ...]
    reason: Reason


Action = (
    Ask
    | Watch
    | RequestBatch
    | RequestHashes
    | RequestUnit
    | Cancel
    | DropPeer
    | Accept
    | AcceptHashes
    | AcceptUnit
    | Assemble
    | DiscardUnits
    | FetchFromOrigin
    | CancelOrigin
    | ShareOrigin
    | AnnounceHave
    | AnnounceMember
    | ReportStuck
)
