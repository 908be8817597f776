"""Every message's number and fields, and control bodies made of and into them.

A control body is a MessagePack array [type, field, …]. This table is the single
source: both directions, the checks and the table in docs/protocol.md follow it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgpack

from p2p.wire import fields, limits
from p2p.wire import messages as m
from p2p.wire.bulk import (
    NO_COMMITMETA,
    BatchHead,
    CommitDataHead,
    Head,
    MapHead,
    UnitHead,
)
from p2p.wire.fields import Field, blob, choice, integer, text
from p2p.wire.rule import RuleError

OPTIONAL = 0x40
"""This bit of a type allows who does not know it to ignore the message."""

MAX_TYPE = 0x7F

Plain = (
    m.Hello
    | m.Bye
    | m.Ping
    | m.Pong
    | m.Holdings
    | m.Record
    | m.Digest
    | m.Request
    | m.Cancel
    | m.PlainAnswer
    | m.Update
    | m.Status
    | Head
)
"""What a control body holds: every message without bulk, and the heads."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Number of a message and its fields in their order on the wire."""

    code: int
    message: type[Any]
    fields: dict[str, Field]

    @property
    def name(self) -> str:
        """The name in the documentation: GET_HEAD for GetHead, BATCH for BatchHead."""
        stem = self.message.__name__
        if issubclass(self.message, Head):
            stem = stem.removesuffix("Head")
        return re.sub(r"(?<!^)(?=[A-Z])", "_", stem).upper()


_REQUEST = {"request": integer(1, limits.U32)}
_SIZE = integer(0, limits.U63)
_FRAME = integer(0, limits.MAX_BATCH_BYTES)
_U32 = integer(0, limits.U32)
_U16 = integer(0, limits.U16)
_REF = {
    "ref": text(limits.MAX_REF_BYTES, 1),
    "collection": text(limits.MAX_REF_BYTES),
}
_TEXT = text(limits.MAX_TEXT_BYTES)

LAYOUTS = (
    Layout(
        0x00,
        m.Hello,
        {
            "minor": _U16,
            "abilities": fields.tokens(limits.MAX_ABILITIES, limits.MAX_ABILITY_BYTES),
            "software": text(limits.MAX_SOFTWARE_BYTES),
            "site": text(limits.MAX_SITE_BYTES),
            "instance": blob(limits.INSTANCE_BYTES, limits.INSTANCE_BYTES),
            "epoch": _SIZE,
            "seen_epoch": _SIZE,
            "seen_seq": _SIZE,
            "max_requests": integer(limits.REQUESTS[0], limits.REQUESTS[-1]),
            "max_names": integer(limits.NAMES[0], limits.NAMES[-1]),
            "port": _U16,
            "dial": _U32,
            "signing_key": blob(0, 32, 32),
        },
    ),
    Layout(
        0x01, m.Bye, {"reason": choice(m.Farewell, m.Farewell.OTHER), "text": _TEXT}
    ),
    Layout(0x02, m.Ping, {"token": _U32}),
    Layout(0x03, m.Pong, {"token": _U32}),
    Layout(
        0x04,
        m.Holdings,
        {
            "commits": fields.rows(
                m.HeldCommit,
                limits.MAX_HELD_COMMITS,
                {"commit": fields.CHECKSUM, "held": choice(m.Held)},
            ),
            "refs": fields.rows(
                m.HeldRef, limits.MAX_HELD_REFS, _REF | {"commit": fields.CHECKSUM}
            ),
            "more": fields.BOOL,
        },
    ),
    # Requests.
    Layout(0x10, m.GetHead, _REQUEST | _REF),
    Layout(0x11, m.GetCommit, _REQUEST | {"commit": fields.CHECKSUM}),
    Layout(
        0x12,
        m.Ask,
        _REQUEST | {"prefixes": fields.prefixes(limits.MAX_ASK_PREFIXES)},
    ),
    Layout(
        0x13,
        m.Want,
        _REQUEST
        | {
            "max_bytes": integer(1, limits.MAX_BATCH_BYTES),
            "names": fields.names(limits.MAX_BATCH_OBJECTS),
        },
    ),
    Layout(
        0x14,
        m.GetUnit,
        _REQUEST
        | {
            "name": fields.NAME,
            "offset": _SIZE,
            "length": integer(1, limits.UNIT_BYTES),
        },
    ),
    Layout(
        0x15,
        m.GetHashes,
        _REQUEST
        | {
            "name": fields.NAME,
            "first": _U32,
            "count": integer(1, limits.MAX_PAGE_HASHES),
        },
    ),
    Layout(
        0x16,
        m.Watch,
        _REQUEST
        | {
            "commit": fields.CHECKSUM,
            "objects": integer(1, limits.MAX_CLOSURE_OBJECTS),
        },
    ),
    Layout(0x18, m.Cancel, _REQUEST),
    # Answers.
    Layout(
        0x20,
        CommitDataHead,
        _REQUEST
        | {
            "checksum": fields.CHECKSUM,
            "commit_bytes": integer(1, limits.MAX_COMMIT_BYTES),
            "commitmeta_bytes": integer(NO_COMMITMETA, limits.MAX_COMMITMETA_BYTES),
        },
    ),
    Layout(0x21, m.Sizes, _REQUEST | {"sizes": fields.sizes(limits.MAX_ASK_PREFIXES)}),
    Layout(
        0x22,
        BatchHead,
        _REQUEST
        | {
            "lengths": fields.integers(
                limits.MAX_BATCH_OBJECTS, min(m.Miss), limits.MAX_BATCH_BYTES
            ),
            "frame_bytes": _FRAME,
        },
    ),
    Layout(
        0x23,
        UnitHead,
        _REQUEST | {"length": integer(1, limits.UNIT_BYTES), "frame_bytes": _FRAME},
    ),
    Layout(
        0x24,
        m.Hashes,
        _REQUEST
        | {
            "size": _SIZE,
            "first": _U32,
            "hashes": blob(32, 32 * limits.MAX_PAGE_HASHES, 32),
            "signer": blob(32, 32),
            "signature": blob(64, 64),
        },
    ),
    Layout(
        0x25,
        MapHead,
        _REQUEST | {"bitmap_bytes": integer(0, limits.MAX_CLOSURE_OBJECTS // 8)},
    ),
    Layout(0x28, m.NotHave, _REQUEST),
    Layout(
        0x29,
        m.Rejected,
        _REQUEST | {"reason": choice(m.Refusal, m.Refusal.OTHER), "text": _TEXT},
    ),
    Layout(0x2A, m.Cancelled, _REQUEST),
    Layout(0x2B, m.Elsewhere, _REQUEST | {"peer": fields.DEVICE}),
    Layout(
        0x2C,
        m.Busy,
        _REQUEST | {"milliseconds": integer(0, limits.MAX_WAIT_MILLISECONDS)},
    ),
    # What follows the map of a WATCH.
    Layout(
        0x30,
        m.Have,
        _REQUEST | {"indices": fields.indices(limits.MAX_HAVE_INDICES)},
    ),
    Layout(
        0x31,
        m.Units,
        _REQUEST
        | {
            "objects": fields.unit_maps(
                limits.MAX_UNITS_OBJECTS, limits.MAX_UNITS_BYTES
            )
        },
    ),
    # Signs of life and gossip: who does not know them loses nothing.
    Layout(
        OPTIONAL | 0x00,
        m.Status,
        _REQUEST | {"queued_bytes": _SIZE, "rate": _SIZE},
    ),
    Layout(
        OPTIONAL | 0x01,
        m.Record,
        {
            "member": fields.DEVICE,
            "epoch": _SIZE,
            "seq": _SIZE,
            "body": blob(1, limits.MAX_RECORD_BYTES),
            "age": integer(0, limits.MAX_RECORD_AGE),
        },
    ),
    Layout(
        OPTIONAL | 0x02,
        m.Digest,
        {
            "first": fields.DEVICE,
            "last": fields.DEVICE,
            "versions": fields.versions(limits.MAX_DIGEST_VERSIONS),
            "is_answer": fields.BOOL,
        },
    ),
)

BY_CODE = {layout.code: layout for layout in LAYOUTS}
BY_CLASS = {layout.message: layout for layout in LAYOUTS}


def encode(message: Plain) -> bytes:
    """Return the control body of a message; the fields' bounds keep it in a frame.

    Raises:
        RuleError: a field is out of its bounds.

    """
    layout = BY_CLASS[type(message)]
    values: list[object] = [layout.code]
    for name, field in layout.fields.items():
        try:
            values.append(field.pack(getattr(message, name)))
        except RuleError as error:
            raise RuleError(f"{layout.name}.{name}: {error}") from None
    body: bytes = msgpack.packb(values)
    return body


def decode(body: bytes) -> Plain | None:
    """Return the message in a control body; None if it may be ignored.

    Raises:
        RuleError: it is not MessagePack, not known, or a field is out of bounds.

    """
    values = _unpack(body)
    code = values[0] if values else None
    if type(code) is not int or not 0 <= code <= MAX_TYPE:
        raise RuleError(f"message type {code!r:.40}")
    layout = BY_CODE.get(code)
    if layout is None:
        if code & OPTIONAL:
            return None
        raise RuleError(f"message type {code:#04x} is not known")
    if len(values) <= len(layout.fields):
        raise RuleError(f"{layout.name} with {len(values) - 1} fields")
    read = []
    for (name, field), value in zip(layout.fields.items(), values[1:], strict=False):
        try:
            read.append(field.unpack(value))
        except RuleError as error:
            raise RuleError(f"{layout.name}.{name}: {error}") from None
    message: Plain = layout.message(**dict(zip(layout.fields, read, strict=True)))
    return message


def _unpack(body: bytes) -> list[Any]:
    try:
        values = msgpack.unpackb(
            body, max_array_len=limits.MAX_ARRAY_ITEMS, max_map_len=0
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise RuleError(f"not MessagePack, or too much of it: {error}") from None
    if type(values) is not list:
        raise RuleError("a control body is an array")
    return values
