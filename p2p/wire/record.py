"""What a member says of itself to its whole site, and how RECORD carries it; pure.

The body of RECORD is the array [claim, key, signature]: the claim as it was signed, in
one byte string; the public key whose SHA-256 is the member's id; and the signature over
`statement`. So whoever relays a record can neither change it nor make one. Without key
and signature a body is believed on the member's own session only and not relayed.
Nobody's clock is compared with another's: all times are relative.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import Any, NamedTuple, NewType

import msgpack

from p2p.errors import FormatError
from p2p.ostree.objects import Checksum, raw
from p2p.wire import fields, limits
from p2p.wire.fields import Field
from p2p.wire.messages import DeviceId
from p2p.wire.rule import RuleError

CommitTag = NewType("CommitTag", bytes)
"""The first 16 bytes of a commit's checksum."""

Lease = NewType("Lease", bytes)
"""What is fetched from the origin together: objects by the first byte of their
checksum, or, of 8 bytes, the one large object whose checksum begins so."""

_DOMAIN = b"ostree-p2p/1 member record\0"
_ORDER = Struct(">QQ")


class OriginState(IntEnum):
    """Whether a device may fetch from the origin."""

    OK = 0
    NO = 1
    """It cannot, or must not."""
    BUSY = 2
    """The origin asked for a pause."""
    METERED = 3
    """Its link costs money."""


class Address(NamedTuple):
    """Where a member takes sessions."""

    host: IPv4Address | IPv6Address
    port: int


class Active(NamedTuple):
    """A lease that is being fetched, and how many bytes of it came."""

    lease: Lease
    byte_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a member says of itself; all of it replaces what it said before.

    Attributes:
        addresses: where it takes sessions, the best first.
        wants: commits it is getting.
        complete: commits it has and shares.
        origin: whether it may fetch from the origin.
        busy_seconds: if that is BUSY, for how long from now.
        active: what it fetches now, the longest first.

    """

    addresses: tuple[Address, ...] = ()
    wants: tuple[CommitTag, ...] = ()
    complete: tuple[CommitTag, ...] = ()
    origin: OriginState = OriginState.NO
    busy_seconds: int = 0
    active: tuple[Active, ...] = ()


class Signed(NamedTuple):
    """The body of a RECORD: a claim's bytes and who vouches for them."""

    claim: bytes
    key: bytes = b""
    signature: bytes = b""


def commit_tag(commit: Checksum) -> CommitTag:
    """Return what claims call a commit."""
    return CommitTag(raw(commit)[: limits.COMMIT_TAG_BYTES])


def bucket_lease(first_byte: int) -> Lease:
    """Return the lease of all objects whose checksum begins with this byte."""
    return Lease(bytes((first_byte,)))


def object_lease(checksum: Checksum) -> Lease:
    """Return the lease of one large object."""
    return Lease(raw(checksum)[: limits.PREFIX_BYTES])


def statement(member: DeviceId, epoch: int, seq: int, claim: bytes) -> bytes:
    """Return the bytes that a record's signature is over.

    They are a constant, the member's id (32 bytes), epoch and seq (64 bits each,
    big-endian), and the claim.
    """
    return _DOMAIN + bytes.fromhex(member) + _ORDER.pack(epoch, seq) + claim


def speaks_for(key: bytes, member: DeviceId) -> bool:
    """Tell whether a key (DER SubjectPublicKeyInfo) is that of a member."""
    return hashlib.sha256(key).hexdigest() == member


# -- fields ------------------------------------------------------------------------


def _pack_address(value: Address) -> bytes:
    return value.host.packed + value.port.to_bytes(2, "big")


def _unpack_address(value: bytes) -> Address:
    port = int.from_bytes(value[-2:], "big")
    if not port:
        raise RuleError("an address without a port")
    return Address(ip_address(value[:-2]), port)


def _sizes(least: int, most: int, label: str) -> Field:
    """Return a field for a byte string of one of two lengths."""

    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) not in {least, most}:
            raise RuleError(f"{value!r:.40} is no {least} or {most} bytes")
        return value

    return Field(f"bin {least} or {most} ({label})", check, check)


def _addresses() -> Field:
    entry = _sizes(6, 18, "address")

    def pack(value: Any) -> list[object]:
        if len(value) > limits.MAX_CLAIM_ADDRESSES:
            raise RuleError(f"{len(value)} addresses")
        return [entry.pack(_pack_address(item)) for item in value]

    def unpack(value: Any) -> tuple[Address, ...]:
        if type(value) is not list or len(value) > limits.MAX_CLAIM_ADDRESSES:
            raise RuleError(f"{value!r:.40} is no array of addresses")
        return tuple([_unpack_address(entry.unpack(item)) for item in value])

    label = f"array of {entry.label}, 0..{limits.MAX_CLAIM_ADDRESSES}"
    return Field(label, pack, unpack)


def _tags() -> Field:
    size = limits.COMMIT_TAG_BYTES
    packed = fields.blob(0, size * limits.MAX_CLAIM_COMMITS, size)

    def unpack(value: Any) -> tuple[CommitTag, ...]:
        tags = packed.unpack(value)
        starts = range(0, len(tags), size)
        return tuple([CommitTag(tags[at : at + size]) for at in starts])

    def pack(value: Any) -> bytes:
        if any(len(tag) != size for tag in value):
            raise RuleError(f"a commit's tag has not {size} bytes")
        joined: bytes = packed.pack(b"".join(value))  # type: ignore[assignment]  # msgpack has no types
        return joined

    return Field(f"{packed.label} (commits)", pack, unpack)


_COMMITS = _tags()

CLAIM: dict[str, Field] = {
    "addresses": _addresses(),
    "wants": _COMMITS,
    "complete": _COMMITS,
    "origin": fields.choice(OriginState, OriginState.NO),
    "busy_seconds": fields.integer(0, limits.MAX_WAIT_MILLISECONDS // 1000),
    "active": fields.rows(
        Active,
        limits.MAX_CLAIM_LEASES,
        {
            "lease": _sizes(1, limits.PREFIX_BYTES, "lease"),
            "byte_count": fields.integer(0, limits.U63),
        },
    ),
}
"""A claim's fields in their order; docs/protocol.md shows this table."""

BODY: dict[str, Field] = {
    "claim": fields.blob(1, limits.MAX_RECORD_BYTES),
    "key": fields.blob(0, limits.MAX_RECORD_BYTES),
    "signature": fields.blob(0, limits.MAX_RECORD_BYTES),
}
"""The fields of a RECORD's body."""


# -- both directions ---------------------------------------------------------------


def encode_claim(claim: Claim) -> bytes:
    """Return a claim's bytes; FormatError if a field is out of its bounds."""
    return _encode(CLAIM, [getattr(claim, name) for name in CLAIM])


def decode_claim(data: bytes) -> Claim:
    """Return the claim in these bytes, whatever follows its fields; or FormatError."""
    return Claim(**_decode(CLAIM, data))


def encode_body(signed: Signed) -> bytes:
    """Return the body of a RECORD; FormatError if it is too long."""
    body = _encode(BODY, list(signed))
    if len(body) > limits.MAX_RECORD_BYTES:
        raise FormatError(f"a member record of {len(body)} bytes")
    return body


def decode_body(body: bytes) -> Signed:
    """Return what is in the body of a RECORD, not verified; or FormatError."""
    return Signed(**_decode(BODY, body))


def _encode(table: dict[str, Field], values: list[Any]) -> bytes:
    try:
        packed = [
            field.pack(value)
            for field, value in zip(table.values(), values, strict=True)
        ]
    except RuleError as error:
        raise FormatError(f"member record: {error}") from None
    data: bytes = msgpack.packb(packed)
    return data


def _decode(table: dict[str, Field], data: bytes) -> dict[str, Any]:
    try:
        values = msgpack.unpackb(
            data, max_array_len=limits.MAX_ARRAY_ITEMS, max_map_len=0
        )
        if type(values) is not list or len(values) < len(table):
            raise RuleError(f"it is no array of {len(table)} fields")
        pairs = zip(table.items(), values, strict=False)
        return {name: field.unpack(value) for (name, field), value in pairs}
    except (ValueError, msgpack.UnpackException, RuleError) as error:
        raise FormatError(f"member record: {error}") from None
