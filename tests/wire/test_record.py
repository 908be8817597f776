"""Member records: what goes in comes out, and what is false is refused."""

import hashlib
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import FormatError
from p2p.wire import limits
from p2p.wire import record as r
from p2p.wire.messages import DeviceId
from tests.wire.samples import COMMIT, DEVICE, NAMES
from tests.wire.vectors import CLAIM

LONGEST = r.Claim(
    addresses=(r.Address(ip_address("fe80::1"), 65_535),) * limits.MAX_CLAIM_ADDRESSES,
    wants=(r.commit_tag(COMMIT),) * limits.MAX_CLAIM_COMMITS,
    complete=(r.commit_tag(COMMIT),) * limits.MAX_CLAIM_COMMITS,
    origin=r.OriginState.BUSY,
    busy_seconds=3600,
    active=(r.Active(r.object_lease(NAMES[0].checksum), limits.U63),)
    * limits.MAX_CLAIM_LEASES,
)
ED25519_KEY = bytes(44)
SIGNATURE = bytes(64)

claims = st.builds(
    r.Claim,
    addresses=st.lists(
        st.builds(r.Address, st.ip_addresses(), st.integers(1, 65_535)), max_size=3
    ).map(tuple),
    wants=st.lists(st.binary(min_size=16, max_size=16), max_size=4).map(tuple),
    complete=st.lists(st.binary(min_size=16, max_size=16), max_size=4).map(tuple),
    origin=st.sampled_from(r.OriginState),
    busy_seconds=st.integers(0, 3600),
    active=st.lists(
        st.builds(
            r.Active,
            st.sampled_from([r.bucket_lease(7), r.object_lease(COMMIT)]),
            st.integers(0, limits.U63),
        ),
        max_size=8,
    ).map(tuple),
)


@given(claims)
def test_a_claim_is_read_as_it_was_written(claim: r.Claim) -> None:
    assert r.decode_claim(r.encode_claim(claim)) == claim


def test_the_longest_claim_fits_a_record_with_key_and_signature() -> None:
    claim = r.encode_claim(LONGEST)
    body = r.encode_body(r.Signed(claim, ED25519_KEY, SIGNATURE))
    assert len(body) <= limits.MAX_RECORD_BYTES
    assert r.decode_body(body).claim == claim


def test_a_body_that_is_too_long_is_not_written() -> None:
    with pytest.raises(FormatError, match="bytes"):
        r.encode_body(r.Signed(r.encode_claim(LONGEST), bytes(294), bytes(256)))


def test_a_record_is_bound_to_the_member_and_its_place_in_time() -> None:
    claim = r.encode_claim(CLAIM)
    other = DeviceId(hashlib.sha256(b"other").hexdigest())
    assert (
        len(
            {
                r.statement(DEVICE, 1, 2, claim),
                r.statement(other, 1, 2, claim),
                r.statement(DEVICE, 2, 2, claim),
                r.statement(DEVICE, 1, 3, claim),
                r.statement(DEVICE, 1, 2, claim + b"\0"),
            }
        )
        == 5
    )


def test_a_key_speaks_for_the_device_whose_id_is_its_hash() -> None:
    assert r.speaks_for(b"key", DeviceId(hashlib.sha256(b"key").hexdigest()))
    assert not r.speaks_for(b"key", DEVICE)


def test_what_later_versions_add_is_ignored() -> None:
    values = msgpack.unpackb(r.encode_claim(CLAIM))
    values[5] = [[*row, "later"] for row in values[5]]
    assert r.decode_claim(msgpack.packb([*values, "later"])) == CLAIM
    assert r.decode_body(msgpack.packb([b"c", b"", b"", 1])) == r.Signed(b"c")


def test_an_origin_state_of_a_later_version_is_no() -> None:
    values = msgpack.unpackb(r.encode_claim(CLAIM))
    values[3] = 9
    assert r.decode_claim(msgpack.packb(values)).origin is r.OriginState.NO


@pytest.mark.parametrize(
    "field, value",
    [
        (0, [bytes(5)]),
        (0, [bytes(6)]),
        (0, ["127.0.0.1"]),
        (0, [bytes(5) + b"\1"] * 4),
        (0, b""),
        (1, bytes(17)),
        (1, bytes(80)),
        (2, []),
        (3, -1),
        (3, True),
        (4, 3601),
        (5, [[b"", 1]]),
        (5, [[bytes(8)]]),
        (5, [[bytes(8), -1]]),
        (5, [[bytes(1), 0]] * 9),
        (5, {}),
    ],
)
def test_a_false_field_is_refused(field: int, value: Any) -> None:
    values = msgpack.unpackb(r.encode_claim(CLAIM))
    values[field] = value
    with pytest.raises(FormatError, match="member record"):
        r.decode_claim(msgpack.packb(values))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"\x01", b"\x93\x01\x01\x01"])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="member record"):
        r.decode_claim(data)
    with pytest.raises(FormatError, match="member record"):
        r.decode_body(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_claim_or_refused(data: bytes) -> None:
    with suppress(FormatError):
        r.decode_claim(data)


@pytest.mark.parametrize(
    "changed",
    [
        {"wants": (r.CommitTag(b"short"),)},
        {"addresses": (r.Address(ip_address("10.0.0.1"), 1),) * 4},
        {"busy_seconds": 4000},
        {"active": (r.Active(r.Lease(b"ab"), 1),)},
    ],
)
def test_what_would_be_refused_is_not_written(changed: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="member record"):
        r.encode_claim(r.Claim(**changed))
