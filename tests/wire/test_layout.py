"""Control bodies: what is accepted and what is not."""

from dataclasses import fields, replace
from typing import Any, get_args

import msgpack
import pytest

from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire import layout, limits
from p2p.wire import messages as m
from p2p.wire.bulk import BatchHead, Head
from p2p.wire.layout import BY_CLASS, LAYOUTS, decode, encode
from p2p.wire.rule import RuleError
from tests.wire.samples import (
    COMMIT,
    DEVICE,
    HASHES,
    HELLO,
    NAMES,
    R1,
    REQUESTS,
    STATE,
)


def body(message: layout.Plain, **changed: Any) -> bytes:
    """Return a message's body, some fields replaced by other MessagePack values."""
    values = msgpack.unpackb(encode(message))
    names = list(BY_CLASS[type(message)].fields)
    for name, value in changed.items():
        values[1 + names.index(name)] = value
    packed: bytes = msgpack.packb(values)
    return packed


def unit_maps(count: int, size: int) -> tuple[m.UnitMap, ...]:
    return tuple(m.UnitMap(index, bytes(size)) for index in range(count))


def test_every_message_has_a_layout_and_every_field_its_place() -> None:
    plain = {kind for kind in get_args(m.Message) if kind not in get_args(m.BulkAnswer)}
    assert set(BY_CLASS) == plain | set(get_args(Head))
    for item in LAYOUTS:
        assert set(item.fields) == {field.name for field in fields(item.message)}


def test_numbers_are_distinct_and_requests_are_never_optional() -> None:
    assert len({item.code for item in LAYOUTS}) == len(LAYOUTS)
    optional = {item.name for item in LAYOUTS if item.code & layout.OPTIONAL}
    assert optional == {"STATUS", "RECORD", "DIGEST"}


def test_names_are_those_of_the_document() -> None:
    assert BY_CLASS[m.GetHead].name == "GET_HEAD"
    assert BY_CLASS[BatchHead].name == "BATCH"


def test_unknown_trailing_fields_are_ignored() -> None:
    values = msgpack.unpackb(encode(m.Ping(5)))
    assert decode(msgpack.packb([*values, "later", [1]])) == m.Ping(5)
    holdings = [4, [[bytes(32), 1, "later"]], [], False]
    assert decode(msgpack.packb(holdings)) == m.Holdings(
        (m.HeldCommit(Checksum("0" * 64), m.Held.COMPLETE),)
    )


def test_unknown_reasons_are_other_reasons() -> None:
    assert decode(msgpack.packb([1, 99, ""])) == m.Bye(m.Farewell.OTHER)
    assert decode(msgpack.packb([0x29, 1, 99, ""])) == m.Rejected(R1, m.Refusal.OTHER)


@pytest.mark.parametrize(
    "packed, why",
    [
        (b"", "MessagePack"),
        (b"\xc1", "MessagePack"),
        (b"\x92\x02", "MessagePack"),
        (b"\x92\x02\x01\x00", "MessagePack"),
        (b"\x92\x02\xa1\xff", "MessagePack"),
        (b"\x92\x02\x81\x01\x02", "MessagePack"),
        (b"\x92\x02\xdd\x00\x00\x02\x01", "MessagePack"),
        (b"\x02", "an array"),
        (b"\x80", "an array"),
        (b"\x90", "type None"),
        (b"\x91\xc3", "type True"),
        (b"\x91\xa1x", "type 'x'"),
        (b"\x91\xff", "type -1"),
        (b"\x91\xcc\x80", "type 128"),
        (b"\x91\x3f", "0x3f is not known"),
        (b"\x91\x02", "PING with 0 fields"),
    ],
)
def test_what_is_no_message_is_refused(packed: bytes, why: str) -> None:
    with pytest.raises(RuleError, match=why):
        decode(packed)


def test_unknown_optional_messages_are_none() -> None:
    assert decode(b"\x91\x7f") is None


WANT = REQUESTS["WANT"]
ASK = REQUESTS["ASK"]
NAME = encode(m.GetUnit(R1, NAMES[0], 0, 1))
REJECTED = m.Rejected(R1, m.Refusal.OTHER)


@pytest.mark.parametrize(
    "message, field, value",
    [
        (m.Ping(1), "token", -1),
        (m.Ping(1), "token", limits.U32 + 1),
        (m.Ping(1), "token", 1.0),
        (m.Ping(1), "token", True),
        (m.Ping(1), "token", None),
        (WANT, "request", 0),
        (WANT, "max_bytes", 0),
        (WANT, "max_bytes", limits.MAX_BATCH_BYTES + 1),
        (WANT, "names", "text"),
        (WANT, "names", b""),
        (WANT, "names", b"\1" * 34),
        (WANT, "names", b"\4" + bytes(32)),
        (WANT, "names", b"\1" * 33 * (limits.MAX_BATCH_OBJECTS + 1)),
        (ASK, "prefixes", b""),
        (ASK, "prefixes", b"\1" * 10),
        (ASK, "prefixes", b"\4" * 9),
        (ASK, "prefixes", b"\1" * 9 * (limits.MAX_ASK_PREFIXES + 1)),
        (m.Sizes(R1, (1,)), "sizes", b""),
        (m.Sizes(R1, (1,)), "sizes", b"\x80" + bytes(7)),
        (m.Sizes(R1, (1,)), "sizes", [1]),
        (BatchHead(R1, (1,)), "lengths", b""),
        (BatchHead(R1, (1,)), "lengths", []),
        (BatchHead(R1, (1,)), "lengths", [-5]),
        (BatchHead(R1, (1,)), "lengths", [limits.MAX_BATCH_BYTES + 1]),
        (BatchHead(R1, (1,)), "lengths", [1, "1"]),
        (BatchHead(R1, (1,)), "lengths", [True]),
        (BatchHead(R1, (1,)), "frame_bytes", -1),
        (BatchHead(R1, (1,)), "frame_bytes", limits.MAX_BATCH_BYTES + 1),
        (HASHES, "hashes", bytes(31)),
        (HASHES, "hashes", b""),
        (HASHES, "signature", bytes(63)),
        (HASHES, "signer", "k" * 32),
        (m.GetCommit(R1, COMMIT), "commit", bytes(31)),
        (m.GetCommit(R1, COMMIT), "commit", "0" * 32),
        (m.Elsewhere(R1, DEVICE), "peer", bytes(33)),
        (m.Have(R1, (1,)), "indices", "text"),
        (m.Have(R1, (1,)), "indices", b"\x80"),
        (m.Have(R1, (1,)), "indices", b""),
        (m.Have(R1, (1,)), "indices", bytes(limits.MAX_HAVE_INDICES + 1)),
        (m.Have(R1, (1,)), "indices", b"\xff\xff\xff\xff\x0f"),
        (HELLO, "abilities", "later"),
        (HELLO, "abilities", ["later", "later"]),
        (HELLO, "abilities", [""]),
        (HELLO, "abilities", [b"later"]),
        (HELLO, "abilities", ["x" * 33]),
        (HELLO, "abilities", [str(n) for n in range(limits.MAX_ABILITIES + 1)]),
        (HELLO, "site", "s" * 256),
        (HELLO, "site", "\x1b[2J"),
        (HELLO, "site", "\u009b"),
        (HELLO, "max_requests", 3),
        (HELLO, "max_names", 4095),
        (STATE["HOLDINGS"], "more", 1),
        (STATE["HOLDINGS"], "commits", [[bytes(32)]]),
        (STATE["HOLDINGS"], "commits", [bytes(32)]),
        (STATE["HOLDINGS"], "commits", [[bytes(32), 9]]),
        (STATE["HOLDINGS"], "commits", [[bytes(32), 1]] * 65),
        (STATE["HOLDINGS"], "refs", [["", "", bytes(32)]]),
        (REJECTED, "reason", -1),
        (REJECTED, "reason", "0"),
        (REJECTED, "reason", limits.U32 + 1),
    ],
)
def test_fields_out_of_bounds_are_refused(
    message: layout.Plain, field: str, value: object
) -> None:
    with pytest.raises(RuleError, match=rf"{BY_CLASS[type(message)].name}\.{field}"):
        decode(body(message, **{field: value}))


FILE = ObjectType.FILE
DEVICE = m.DeviceId("0" * 64)
DIGEST = m.Digest(first=DEVICE, last=DEVICE, versions=(), is_answer=False)


@pytest.mark.parametrize(
    "message",
    [
        m.Ping(-1),
        m.Ping(True),
        replace(HELLO, site="\ud800"),
        replace(HELLO, site="x" * 256),
        replace(HELLO, site="two\nlines"),
        replace(HELLO, instance=b"short"),
        replace(HELLO, abilities=frozenset({"x" * 33})),
        replace(HELLO, abilities=frozenset(map(str, range(33)))),
        m.GetCommit(R1, Checksum("0" * 63)),
        m.GetCommit(R1, Checksum("A" * 64)),
        m.GetCommit(R1, Checksum("x" * 64)),
        m.GetCommit(R1, Checksum("00" * 33)),
        m.Want(R1, 1, (ObjectName(COMMIT, ObjectType.COMMIT),)),
        m.Want(R1, 1, (ObjectName(Checksum("00"), FILE),)),
        m.Want(R1, 1, (ObjectName(Checksum("xx"), FILE),)),
        m.Want(R1, 1, ()),
        m.Want(R1, 1, (ObjectName(Checksum("0" * 62), FILE),) * 33),
        m.Ask(R1, (m.Prefix(FILE, b"short"),)),
        m.Ask(R1, (m.Prefix(FILE, bytes(7)), m.Prefix(FILE, bytes(9)))),
        m.Ask(R1, (m.Prefix(ObjectType.COMMIT, bytes(8)),)),
        m.Ask(R1, ()),
        m.Sizes(R1, (-1,)),
        m.Sizes(R1, (limits.U63 + 1,)),
        m.Sizes(R1, ()),
        BatchHead(R1, ()),
        replace(DIGEST, versions=(m.Version(DEVICE, -1, 0),)),
        replace(DIGEST, versions=(m.Version(DEVICE, 0, 1 << 63),)),
        replace(DIGEST, versions=(m.Version(m.DeviceId("nobody"), 0, 0),)),
        m.Have(R1, ()),
        m.Have(R1, (2, 1)),
        m.Have(R1, (limits.MAX_CLOSURE_OBJECTS,)),
        m.Have(R1, tuple(range(limits.MAX_HAVE_INDICES + 1))),
        m.Units(R1, ()),
        m.Units(R1, (m.UnitMap(0, b""),)),
        m.Units(R1, (m.UnitMap(limits.MAX_CLOSURE_OBJECTS, b"\x80"),)),
        m.Units(R1, (m.UnitMap(0, b"\x80"), m.UnitMap(0, b"\x40"))),
        m.Units(R1, unit_maps(6, limits.MAX_OBJECT_UNITS // 8 + 1)),
        m.Units(R1, unit_maps(7, limits.MAX_OBJECT_UNITS // 8)),
        m.Units(R1, unit_maps(limits.MAX_UNITS_OBJECTS + 1, 1)),
        m.Holdings((m.HeldCommit(COMMIT, m.Held.COMPLETE),) * 65),
    ],
)
def test_what_would_be_refused_is_not_encoded(message: layout.Plain) -> None:
    name = BY_CLASS[type(message)].name
    with pytest.raises(RuleError, match=rf"^{name}\."):
        encode(message)


def test_a_number_is_not_taken_for_a_reason() -> None:
    reason: Any = 1
    with pytest.raises(RuleError, match=r"BYE\.reason"):
        encode(m.Bye(reason))


def test_the_longest_messages_fit_a_frame() -> None:
    names = tuple(NAMES[:1] * limits.MAX_BATCH_OBJECTS)
    longest: list[layout.Plain] = [
        m.Ask(R1, (m.prefix_of(NAMES[0]),) * limits.MAX_ASK_PREFIXES),
        m.Sizes(R1, (None,) * limits.MAX_ASK_PREFIXES),
        m.Want(R1, 1, names),
        replace(HASHES, hashes=bytes(32 * limits.MAX_PAGE_HASHES)),
        m.Have(R1, tuple(range(0, limits.MAX_HAVE_INDICES * 900, 900))),
        m.Units(R1, unit_maps(6, limits.MAX_OBJECT_UNITS // 8)),
        m.Units(
            R1,
            unit_maps(
                limits.MAX_UNITS_OBJECTS,
                limits.MAX_UNITS_BYTES // limits.MAX_UNITS_OBJECTS,
            ),
        ),
        m.Holdings(
            (m.HeldCommit(COMMIT, m.Held.COMPLETE),) * limits.MAX_HELD_COMMITS,
            (m.HeldRef("r" * 255, "c" * 255, COMMIT),) * limits.MAX_HELD_REFS,
        ),
    ]
    for message in longest:
        assert decode(encode(message)) == message


def test_prefixes_begin_as_the_checksum_does() -> None:
    assert m.prefix_of(ObjectName(Checksum("ab" * 32), FILE)) == (FILE, b"\xab" * 8)


def test_a_digest_may_say_that_nobody_is_known() -> None:
    assert decode(encode(DIGEST)) == DIGEST
