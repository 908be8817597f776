"""Makes the vectors of docs/vectors/wire.json: what a peer in any language must do."""

import hashlib
from dataclasses import fields, replace
from enum import IntEnum
from ipaddress import ip_address
from typing import Any

import nacl.signing

from p2p.wire import bitmap, layout, limits, varint
from p2p.wire import messages as m
from p2p.wire import record as r
from p2p.wire.bulk import BatchHead, UnitHead, split
from p2p.wire.connection import Connection
from p2p.wire.frame import control_frame, slice_header
from p2p.wire.hashes import statement
from tests.wire.samples import (
    ANSWERS,
    COMMIT,
    DEVICE,
    HELLO,
    NAMES,
    R1,
    REFUSALS,
    REQUESTS,
    STATE,
)

SEED = bytes(range(32))
KEY = nacl.signing.SigningKey(SEED)
LIST = bytes(range(64))
SIZE, FIRST = 1_000_000, 2
SIGNED = statement(NAMES[0], SIZE, FIRST, LIST)
HELLO_OF_DIALLER = replace(HELLO, signing_key=bytes(KEY.verify_key))
HELLO_OF_ACCEPTOR = m.Hello(
    software="other/2",
    site="factory.example",
    instance=bytes(16),
    epoch=1,
    dial=0,
    abilities=frozenset({"other"}),
)
HASHES = m.Hashes(
    request=R1,
    size=SIZE,
    first=FIRST,
    hashes=LIST,
    signer=bytes(KEY.verify_key),
    signature=KEY.sign(SIGNED).signature,
)

# As one packer made it; others may make other frames of the same.
PACKED = b"ostree-p2p " * 20
FRAME = bytes.fromhex("28b52ffd20dc950000586f73747265652d7032702001004e53c50b")

# RFC 8410: an Ed25519 key as SubjectPublicKeyInfo.
SPKI = bytes.fromhex("302a300506032b6570032100") + bytes(KEY.verify_key)
MEMBER = m.DeviceId(hashlib.sha256(SPKI).hexdigest())
EPOCH, SEQ = 7, 99
CLAIM = r.Claim(
    addresses=(
        r.Address(ip_address("192.0.2.7"), 7878),
        r.Address(ip_address("2001:db8::7"), 7878),
    ),
    wants=(r.commit_tag(COMMIT),),
    complete=(r.commit_tag(NAMES[0].checksum),),
    origin=r.OriginState.BUSY,
    busy_seconds=30,
    active=(
        r.Active(r.object_lease(NAMES[0].checksum), 5_000_000),
        r.Active(r.bucket_lease(0x3E), 40_000),
    ),
)
CLAIM_BYTES = r.encode_claim(CLAIM)
STATEMENT = r.statement(MEMBER, EPOCH, SEQ, CLAIM_BYTES)
BODY = r.encode_body(r.Signed(CLAIM_BYTES, SPKI, KEY.sign(STATEMENT).signature))
RECORD = m.Record(MEMBER, EPOCH, SEQ, BODY, 12)


def plain(value: Any) -> Any:
    """Return a value as JSON: byte strings in hex, tuples and sets as arrays."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, IntEnum) else value


def as_fields(message: layout.Plain) -> dict[str, Any]:
    """Return the fields of a message in their order on the wire."""
    names = layout.BY_CLASS[type(message)].fields
    assert {field.name for field in fields(message)} == set(names)
    return {name: plain(getattr(message, name)) for name in names}


def _messages() -> list[layout.Plain]:
    found: list[layout.Plain] = [HELLO_OF_DIALLER, m.Bye(m.Farewell.LEAVING, "off")]
    found += [m.Ping(77), m.Pong(77)]
    for message in [STATE["HOLDINGS"], *REQUESTS.values(), m.Cancel(R1)]:
        assert not isinstance(message, m.BulkAnswer)
        found.append(message)
    for kind, answer in ANSWERS.items():
        if kind == "GET_HASHES":
            found.append(HASHES)
        elif isinstance(answer, m.BulkAnswer):
            found.append(split(answer)[0])
        else:
            found.append(answer)
    for refusal in REFUSALS.values():
        assert not isinstance(refusal, m.BulkAnswer)
        found.append(refusal)
    found += [m.Cancelled(R1), m.Elsewhere(R1, DEVICE)]
    units = m.UnitMap(4, b"\xc0"), m.UnitMap(200, b"\0\x20")
    found += [m.Have(R1, (1, 3, 200)), m.Units(R1, units)]
    found += [m.Status(R1, 1_000_000, 9_570_000), RECORD]
    digest = STATE["DIGEST"]
    assert isinstance(digest, m.Digest)
    found.append(digest)
    return found


def _conversation() -> list[dict[str, Any]]:
    ends = {"dialler": Connection(), "acceptor": Connection()}
    want = m.Want(R1, limits.BATCH_BYTES, NAMES)
    unit = m.GetUnit(m.RequestId(2), NAMES[0], 524_288, 262_144)
    script: list[tuple[str, m.Message | None]] = [
        ("dialler", HELLO_OF_DIALLER),
        ("acceptor", HELLO_OF_ACCEPTOR),
        ("acceptor", m.Holdings((m.HeldCommit(COMMIT, m.Held.COMPLETE),))),
        ("dialler", want),
        ("acceptor", m.Batch(R1, (b"first", m.Miss.OMITTED, b"third"))),
        ("dialler", unit),
        ("dialler", m.Cancel(unit.request)),
        ("acceptor", None),  # CANCELLED, by itself
        ("dialler", m.Ping(5)),
        ("acceptor", None),  # PONG, by itself
        ("dialler", m.Bye(m.Farewell.IDLE)),
    ]
    steps = []
    for speaker, message in script:
        end = ends[speaker]
        if message is not None:
            end.send(message)
        data = b"".join(b"".join(end.data_to_send()) for _ in range(2))
        [other] = [ends[name] for name in ends if name != speaker]
        other.receive_data(data)
        event = other.next_event()
        assert other.next_event() is None
        steps.append(
            {"from": speaker, "event": type(event).__name__, "bytes": data.hex()}
        )
    return steps


def _frame(message: layout.Plain) -> bytes:
    return control_frame(layout.encode(message))


def _refused() -> list[dict[str, str]]:
    """Return bytes that end a session, each sent by the acceptor to the dialler.

    In the session both have said HELLO, and the dialler has asked WANT (request 1:
    3 objects, 262,144 bytes) and GET_UNIT (request 2: 100 bytes).
    """
    bulk = slice_header(2, 3) + b"abc"
    two = m.RequestId(2)
    ask = m.Ask(R1, (m.prefix_of(NAMES[0]),))
    cases = {
        "a second HELLO": _frame(HELLO_OF_ACCEPTOR),
        "an empty control frame": bytes(4),
        "a control frame of 65,537 bytes": (65_537).to_bytes(4, "big"),
        "a frame of kind 2": b"\2\0\0\1x",
        "an empty slice": slice_header(2, 0),
        "not MessagePack": control_frame(b"\xc1"),
        "MessagePack with bytes behind it": control_frame(b"\x92\x02\x01\x00"),
        "a map": control_frame(b"\x92\x02\x81\x01\x01"),
        "an array of 513 items": control_frame(
            b"\x93\x02\x01\xdc\x02\x01" + b"\x01" * 513
        ),
        "a type that is no integer": control_frame(b"\x91\xa1x"),
        "an unknown type without the optional bit": control_frame(b"\x91\x3f"),
        "PING without its token": control_frame(b"\x91\x02"),
        "a boolean for a number": control_frame(b"\x92\x02\xc3"),
        "control characters in text": control_frame(b"\x93\x01\x00\xa1\x1b"),
        "PONG without PING": _frame(m.Pong(1)),
        "bulk of request 0": slice_header(0, 1) + b"x",
        "bulk that was not asked for": slice_header(3, 1) + b"x",
        "bulk before its head": bulk,
        "more bulk than announced": _frame(UnitHead(two, 2)) + bulk,
        "a second head": _frame(UnitHead(two, 3)) * 2,
        "an answer after the terminal answer": _frame(m.NotHave(two)) * 2,
        "an answer to a request that was not made": _frame(m.NotHave(m.RequestId(3))),
        "CANCELLED without CANCEL": _frame(m.Cancelled(two)),
        "CANCEL of a request that was not made": _frame(m.Cancel(R1)),
        "a batch for fewer objects": _frame(BatchHead(R1, (1, 1))),
        "a batch of more than max_bytes": _frame(BatchHead(R1, (262_144, 1, -1))),
        "a frame of zstd, which only one named": _frame(BatchHead(R1, (9, 9, 9), 20)),
        "a unit longer than asked": _frame(UnitHead(two, 101)),
        "a unit for a WANT": _frame(UnitHead(R1, 5)),
        "an update of something not watched": _frame(m.Have(R1, (1,))),
        "request ids that do not ascend": _frame(replace(ask, request=two))
        + _frame(ask),
        "two commits at once": _frame(m.GetHead(R1, "a")) + _frame(m.GetHead(two, "a")),
        "anything after BYE": _frame(m.Bye(m.Farewell.IDLE)) + _frame(m.Ping(1)),
    }
    return [{"why": why, "bytes": data.hex()} for why, data in cases.items()]


def _as_read(body: bytes) -> dict[str, Any]:
    message = layout.decode(body)
    if message is None:
        return {"message": None, "fields": {}}
    name = layout.BY_CLASS[type(message)].name
    return {"message": name, "fields": as_fields(message)}


def make() -> dict[str, Any]:
    """Return all vectors."""
    return {
        "messages": [
            {**_as_read(layout.encode(message)), "body": layout.encode(message).hex()}
            for message in _messages()
        ],
        "accepted": [
            {"why": why, "body": body.hex(), **_as_read(body)}
            for why, body in {
                "unknown type with the optional bit: ignored": b"\x92\x7f\x01",
                "a trailing field": b"\x93\x02\x4d\xa5later",
                "a reason not known": b"\x93\x01\x63\xa0",
                "a number not in its shortest form": b"\x92\x02\xcd\x00\x4d",
            }.items()
        ],
        "conversation": _conversation(),
        "refused": _refused(),
        "varints": [
            {"numbers": numbers, "bytes": varint.pack_ascending(numbers).hex()}
            for numbers in ([0], [0, 1, 2], [5, 7], [128], [0, 300], [7_999_999])
        ],
        "bitmaps": [
            {"bits": bits, "count": count, "bytes": bitmap.pack(bits, count).hex()}
            for bits, count in (([0], 1), ([0, 9], 10), ([7, 8], 16))
        ],
        "hashes": {
            "seed": SEED.hex(),
            "signer": bytes(KEY.verify_key).hex(),
            "name": plain(NAMES[0]),
            "size": SIZE,
            "first": FIRST,
            "hashes": LIST.hex(),
            "statement": SIGNED.hex(),
            "signature": HASHES.signature.hex(),
        },
        "zstd": {"content": PACKED.hex(), "frame": FRAME.hex()},
        "record": {
            "seed": SEED.hex(),
            "key": SPKI.hex(),
            "member": MEMBER,
            "epoch": EPOCH,
            "seq": SEQ,
            "fields": {
                "addresses": [[str(host), port] for host, port in CLAIM.addresses],
                "wants": plain(CLAIM.wants),
                "complete": plain(CLAIM.complete),
                "origin": int(CLAIM.origin),
                "busy_seconds": CLAIM.busy_seconds,
                "active": plain(CLAIM.active),
            },
            "claim": CLAIM_BYTES.hex(),
            "statement": STATEMENT.hex(),
            "body": BODY.hex(),
        },
    }
