import contextlib
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import ConnectError, FormatError, LimitError
from p2p.net.x509 import (
    EARLY_SECONDS,
    MAX_BYTES,
    Certificate,
    Validity,
    device_id_of,
    judge,
    parse_certificate,
)
from p2p.trust.policy import Clock
from tests.net.pki import Authority, make_key

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
YEAR = 365 * 86400


def der(
    name: x509.Name | None = None,
    begin: datetime = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
    end: datetime = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
) -> bytes:
    name = x509.Name([]) if name is None else name
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(end)
        .sign(KEY, None)
        .public_bytes(serialization.Encoding.DER)
    )


def common_name(text: str, kind: _ASN1Type | None = None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, kind)])


def value(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    return bytes([tag, 0x82]) + len(body).to_bytes(2) + body


def handmade(
    *,
    version: bytes = bytes.fromhex("a003020102"),
    serial: bytes = bytes.fromhex("020101"),
    issuer: bytes = bytes.fromhex("3000"),
    begin: bytes = value(0x17, b"200102030405Z"),
    end: bytes = value(0x17, b"491231235959Z"),
    subject: bytes = bytes.fromhex("3000"),
    key: bytes = bytes.fromhex("3000"),
) -> bytes:
    validity = value(0x30, begin, end)
    algorithm = bytes.fromhex("300506032b6570")
    body = value(0x30, version, serial, algorithm, issuer, validity, subject, key, b"")
    return value(0x30, body, algorithm, bytes.fromhex("030100"))


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_the_device_id_is_the_hash_of_the_public_key_of_every_kind(
    kind: str, tmp_path: Path
) -> None:
    key = make_key(kind)
    certificate = Authority(tmp_path).sign("robot-7", key)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    found = parse_certificate(certificate.public_bytes(serialization.Encoding.DER))
    assert found.device_id == hashlib.sha256(public).hexdigest()
    assert found.device_id == device_id_of(public)
    assert found.not_before == int(certificate.not_valid_before_utc.timestamp())
    assert found.not_after == int(certificate.not_valid_after_utc.timestamp())
    assert found.name == "robot-7"


def test_the_device_id_of_a_known_key_is_known() -> None:
    # For whoever writes a peer in another language: SHA-256 over these 44 bytes.
    public = bytes.fromhex(
        "302a300506032b657003210003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc"
        "8664125531b8"
    )
    assert parse_certificate(der()).device_id == device_id_of(public)
    assert device_id_of(public) == (
        "a050837d85070582ccf7394b0988847cc312cb88259b894899f6f239cf1791a5"
    )


@pytest.mark.parametrize(
    "end",
    [
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_both_forms_of_time_are_read(end: datetime) -> None:
    found = parse_certificate(der(end=end))
    assert datetime.fromtimestamp(found.not_after, UTC) == end


def test_a_time_of_last_century_is_read() -> None:
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_certificate(der(begin=begin)).not_before == 0


@pytest.mark.parametrize(
    "name, shown",
    [
        (x509.Name([]), ""),
        (common_name("Prüfstand 3"), "Prüfstand 3"),
        (common_name("plain", _ASN1Type.PrintableString), "plain"),
        (common_name("wide ✓", _ASN1Type.BMPString), "wide ✓"),
        (common_name("evil\x1b[2J\nname"), "evil�[2J�name"),
        (common_name("x" * 64), "x" * 64),
        (
            x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Works")]),
            "",
        ),
        (
            x509.Name([*common_name("group"), *common_name("device")]),
            "device",
        ),
    ],
)
def test_the_name_is_for_people(name: x509.Name, shown: str) -> None:
    assert parse_certificate(der(name)).name == shown


def test_a_name_in_bytes_that_are_no_text_is_shown_all_the_same() -> None:
    oid = bytes.fromhex("0603550403")
    pair = value(0x30, oid, value(0x0C, b"\xff\xfe" + b"y" * 99))
    found = parse_certificate(handmade(subject=value(0x30, value(0x31, pair))))
    assert found.name == "��" + "y" * 62


def test_a_certificate_of_version_1_is_read_too() -> None:
    assert parse_certificate(handmade(version=b"")).name == ""


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"0",
        value(0x31, b""),
        value(0x30, b""),
        value(0x30, value(0x02, b"\1")),
        value(0x30, value(0x30, b"")),
        handmade() + b"\0",
        handmade(serial=bytes.fromhex("040101")),
        handmade(issuer=bytes.fromhex("3100")),
        handmade(subject=value(0x30, bytes.fromhex("3000"))),
        handmade(subject=value(0x30, value(0x31, bytes.fromhex("0500")))),
        handmade(subject=value(0x30, value(0x31, bytes.fromhex("3000")))),
        handmade(subject=value(0x30, value(0x31, value(0x30, b"\x06\x00")))),
        handmade(key=bytes.fromhex("0400")),
        handmade(key=b""),
        handmade(begin=b""),
        handmade(begin=value(0x17, b"2001020304Z")),
        handmade(begin=value(0x18, b"200102030405Z")),
        handmade(begin=value(0x17, b"20200102030405Z")),
        handmade(begin=value(0x18, b"20200102030405+0100")),
        handmade(begin=value(0x17, b"201302030405Z")),
        handmade(begin=value(0x17, b"200230030405Z")),
        handmade(begin=value(0x18, b"00000102030405Z")),
        bytes.fromhex("3080"),  # indefinite length
        bytes.fromhex("308400000001ff"),  # a length of four bytes
        bytes.fromhex("30830000"),
        bytes.fromhex("3f8101"),  # a tag of several bytes
        bytes.fromhex("3005300102"),
    ],
)
def test_what_is_no_certificate_is_refused(broken: bytes) -> None:
    with pytest.raises(FormatError):
        parse_certificate(broken)


def test_a_huge_certificate_is_refused_unread() -> None:
    with pytest.raises(LimitError):
        parse_certificate(bytes(MAX_BYTES + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_certificate_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        parse_certificate(data)


@given(st.data())
def test_a_certificate_with_a_changed_byte_is_read_or_refused(
    data: st.DataObject,
) -> None:
    changed = bytearray(der(common_name("x")))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FormatError):
        parse_certificate(bytes(changed))


# -- times ----------------------------------------------------------------------

NOW = 1_800_000_000
CURRENT = Certificate(device_id_of(b""), NOW - YEAR, NOW + YEAR, "")
ENDED = Certificate(device_id_of(b""), NOW - 2 * YEAR, NOW - YEAR, "")
NOT_YET = Certificate(device_id_of(b""), NOW + YEAR, NOW + 2 * YEAR, "")


def test_a_right_clock_accepts_a_current_certificate() -> None:
    assert judge(CURRENT, Clock(now=NOW, trusted=True)) is Validity.CURRENT


def test_a_right_clock_refuses_an_ended_one_and_says_when() -> None:
    with pytest.raises(ConnectError, match="ended 2026-01-15"):
        judge(ENDED, Clock(now=NOW, trusted=True))


def test_the_last_second_still_counts() -> None:
    last = Clock(now=CURRENT.not_after, trusted=True)
    assert judge(CURRENT, last) is Validity.CURRENT
    with pytest.raises(ConnectError):
        judge(CURRENT, Clock(now=CURRENT.not_after + 0.5, trusted=True))


def test_a_right_clock_refuses_one_of_next_year_and_says_both_times() -> None:
    with pytest.raises(ConnectError, match=r"begins 2028.*clock says 2027"):
        judge(NOT_YET, Clock(now=NOW, trusted=True))


def test_a_certificate_issued_by_a_clock_a_day_ahead_is_accepted() -> None:
    early = Clock(now=NOT_YET.not_before - EARLY_SECONDS, trusted=True)
    assert judge(NOT_YET, early) is Validity.CURRENT


@pytest.mark.parametrize("certificate", [CURRENT, ENDED, NOT_YET])
def test_a_clock_at_1970_refuses_nobody(certificate: Certificate) -> None:
    assert judge(certificate, Clock(now=0, trusted=False)) is Validity.UNJUDGED


@pytest.mark.parametrize("now", [0, NOW, NOW + 10 * YEAR])
def test_a_clock_that_is_not_believed_knows_only_its_floor(now: int) -> None:
    clock = Clock(now=now, trusted=False, floor=NOW)
    assert judge(CURRENT, clock) is Validity.UNJUDGED
    assert judge(NOT_YET, clock) is Validity.UNJUDGED
    with pytest.raises(ConnectError, match="ended"):
        judge(ENDED, clock)


def test_a_clock_behind_its_floor_is_not_believed() -> None:
    clock = Clock(now=0, trusted=True, floor=NOW)
    assert judge(NOT_YET, clock) is Validity.UNJUDGED
    with pytest.raises(ConnectError, match="ended"):
        judge(ENDED, clock)
