import binascii
import hashlib

import pytest

from p2p.errors import FormatError, LimitError
from p2p.trust import openpgp
from p2p.trust.openpgp import (
    Certificate,
    Packet,
    Tag,
    is_armoured,
    merge_keyrings,
    parse_keyring,
    serialize_keyring,
)
from tests.trust.vectors import (
    ARMOURED_GOOD,
    FINGERPRINTS,
    KEYBOX,
    KEYS,
    SIGNATURES,
    certificates,
)

KEY = Packet(Tag.PUBLIC_KEY, b"\x04key")
USER = Packet(Tag.USER_ID, b"somebody")
SUBKEY = Packet(Tag.PUBLIC_SUBKEY, b"\x04subkey")
SIG_1, SIG_2, SIG_3 = (Packet(Tag.SIGNATURE, b"sig %d" % n) for n in range(3))


def old(tag: int, body: bytes, width: int = 1) -> bytes:
    """A packet with a header of the old form and a length of 1, 2 or 4 bytes."""
    kind = {1: 0, 2: 1, 4: 2}[width]
    return bytes((0x80 | tag << 2 | kind,)) + len(body).to_bytes(width, "big") + body


def new(tag: int, body: bytes) -> bytes:
    """A packet with a header of the new form."""
    return bytes((0xC0 | tag,)) + encode_length(len(body)) + body


def encode_length(size: int) -> bytes:
    if size < 192:
        return bytes((size,))
    if size < 8384:
        return (size - 192 + (192 << 8)).to_bytes(2, "big")
    return b"\xff" + size.to_bytes(4, "big")


@pytest.mark.parametrize("name", KEYS)
def test_exports_of_gpg_are_read_and_written_back_byte_for_byte(name: str) -> None:
    (certificate,) = parse_keyring(KEYS[name])
    assert certificate.fingerprint == FINGERPRINTS[name.partition(",")[0]][0]
    assert serialize_keyring([certificate]) == KEYS[name]


def test_a_keyring_is_many_keys_in_a_row() -> None:
    together = KEYS["good"] + KEYS["subkey"] + KEYS["expired"]
    assert parse_keyring(together) == certificates("good", "subkey", "expired")
    assert serialize_keyring(parse_keyring(together)) == together


def test_a_keybox_holds_the_same_keys() -> None:
    assert parse_keyring(KEYBOX) == certificates("good", "subkey")


def test_armour_is_taken_off_even_with_text_around_it() -> None:
    assert is_armoured(ARMOURED_GOOD.encode())
    assert not is_armoured(KEYS["good"])
    assert "Comment: " in ARMOURED_GOOD
    text = f"Our key:\r\n{ARMOURED_GOOD}\nand once more\n{ARMOURED_GOOD}bye"
    assert parse_keyring(text.encode()) == certificates("good")
    windows = ARMOURED_GOOD.replace("\n", "\r\n")
    assert parse_keyring(windows.encode()) == certificates("good")


def test_a_revocation_in_any_copy_of_a_key_is_kept() -> None:
    before, after = certificates("revoked, before", "revoked")
    assert merge_keyrings([before, after]) == (after,)
    assert merge_keyrings([after, before]) == (after,)


def test_copies_of_a_key_are_joined_part_by_part() -> None:
    one = Certificate(((KEY, ()), (USER, (SIG_1,)), (SUBKEY, (SIG_2,))))
    other_user = Packet(Tag.USER_ATTRIBUTE, b"photo")
    two = Certificate(((KEY, (SIG_3,)), (USER, (SIG_1, SIG_2)), (other_user, ())))
    assert one.merged(two) == Certificate(
        (
            (KEY, (SIG_3,)),
            (USER, (SIG_1, SIG_2)),
            (other_user, ()),
            (SUBKEY, (SIG_2,)),
        )
    )


def test_the_fingerprint_of_other_versions_is_their_sha256() -> None:
    later = Certificate(((Packet(Tag.PUBLIC_KEY, b"\x06key"), ()),))
    assert later.fingerprint == hashlib.sha256(b"\x06key").hexdigest().upper()


@pytest.mark.parametrize("size", [3, 191, 192, 300, 8383, 8384, 70000])
def test_lengths_of_every_form_are_read(size: int) -> None:
    body = b"\x04" + bytes(size - 1)
    expected = (Certificate(((Packet(Tag.PUBLIC_KEY, body), ()),)),)
    assert parse_keyring(new(6, body)) == expected
    assert parse_keyring(old(6, body, 4)) == expected
    written = serialize_keyring(expected)
    assert parse_keyring(written) == expected
    header = 2 if size < 256 else 3 if size < 65536 else 5
    assert len(written) == size + header


def test_high_tags_are_written_in_the_new_form() -> None:
    photo = Packet(Tag.USER_ATTRIBUTE, b"photo")
    certificate = Certificate(((KEY, ()), (photo, (SIG_1,))))
    data = serialize_keyring([certificate])
    assert data.endswith(b"\xd1\xff\0\0\0\x05photo\x88\x05sig 0")
    assert parse_keyring(data) == (certificate,)


def test_trust_and_unknown_packets_are_left_out() -> None:
    trust, unknown = old(12, b"\0\0"), new(60, b"private use")
    data = KEYS["good"] + trust + unknown
    assert parse_keyring(data) == certificates("good")


GOOD = KEYS["good"]


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "no OpenPGP public key"),
        (b"text\n", "not OpenPGP data"),
        (old(12, b"x"), "no OpenPGP public key"),
        (old(13, b"user"), "does not begin with a key"),
        (SIGNATURES["good"], "an OpenPGP signature where keys belong"),
        (old(5, b"\x04secret"), "a secret key where public ones"),
        (GOOD + old(7, b"\x04secret"), "a secret key where public ones"),
        (GOOD[:-1], "cut off"),
        (b"\x98", "cut off"),
        (b"\x99\x01", "cut off"),
        (b"\xc6", "cut off"),
        (b"\xc6\xc1", "cut off"),
        (b"\xc6\xff\0\0", "cut off"),
        (b"\x9b\0", "indeterminate length"),
        (b"\xc6\xe1x", "in parts"),
    ],
)
def test_what_is_no_keyring_is_refused_with_the_reason(
    data: bytes, reason: str
) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_keyring(data)


@pytest.mark.parametrize(
    "old_text, new_text, reason",
    [
        ("PUBLIC KEY", "PRIVATE KEY", "PRIVATE KEY BLOCK, not of public"),
        ("\n\n", "\n\n****", "not base64"),
        ("Comment: made for a test\n\n", "", "no OpenPGP public key"),
    ],
)
def test_armour_of_something_else_is_refused(
    old_text: str, new_text: str, reason: str
) -> None:
    text = ARMOURED_GOOD.replace(old_text, new_text)
    assert text != ARMOURED_GOOD
    with pytest.raises(FormatError, match=reason):
        parse_keyring(text.encode())


def test_a_keyring_beyond_all_measure_is_refused_unread() -> None:
    with pytest.raises(LimitError, match="larger than 4194304 bytes"):
        parse_keyring(bytes(openpgp.MAX_KEYRING_BYTES + 1))


@pytest.mark.parametrize(
    "at, value, reason",
    [
        (0, b"\0\0\0\0", "blob of the wrong size"),
        (0, b"\x7f\xff\xff\xff", "blob of the wrong size"),
        (32 + 8, b"\0\0\xff\xff", "outside its blob"),
        (32 + 12, b"\xff\xff\xff\xff", "outside its blob"),
        (32 + 4, b"\x03", "no OpenPGP public key"),
    ],
)
def test_a_damaged_keybox_is_refused(at: int, value: bytes, reason: str) -> None:
    first_two = KEYBOX[: 32 + int.from_bytes(KEYBOX[32:36], "big")]
    data = first_two[:at] + value + first_two[at + len(value) :]
    with pytest.raises(FormatError, match=reason):
        parse_keyring(data)


def test_the_checksum_line_of_armour_is_no_part_of_the_key() -> None:
    lines = ARMOURED_GOOD.splitlines()
    assert lines[-2].startswith("=")
    body = "".join(lines[lines.index("") + 1 : -2])
    assert binascii.a2b_base64(body) == KEYS["good"]
