"""Issues the certificates of open membership (RFC 5280, RFC 8410).

Needed once in a device's life, when it has no certificate yet. The few DER values it
takes are written here: `cryptography`, which could, would keep 14 MB of an agent's
memory until it is started again. The authority's key is published on purpose: whoever
can read this file is a member. It exists because Python's ssl accepts no client
certificate without an authority, and so that open and fleet membership are one code
path.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
import textwrap

from nacl.signing import SigningKey

# The Ed25519 seed of the authority is the SHA-256 of this.
AUTHORITY_PHRASE = b"ostree-p2p open membership, authority 1"
_AUTHORITY_NAME = "ostree-p2p open membership 1"
_DEVICE_NAME = "ostree-p2p device"
# A device that has no idea of the time must issue itself a certificate too, so the
# times say nothing: from the epoch to "no well-defined end" (RFC 5280 §4.1.2.5).
_BEGIN = "700101000000Z"
_END = "99991231235959Z"
_SERIAL_BITS = 159  # 20 bytes with the sign, as RFC 5280 §4.1.2.2 allows

_BOOLEAN = 0x01
_INTEGER = 0x02
_BIT_STRING = 0x03
_OCTET_STRING = 0x04
_OBJECT_ID = 0x06
_UTF8_STRING = 0x0C
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_SEQUENCE = 0x30
_SET = 0x31
_VERSION = 0xA0
_EXTENSIONS = 0xA3

_ED25519 = "2b6570"
_COMMON_NAME = "550403"
_KEY_USAGE = "551d0f"
_BASIC_CONSTRAINTS = "551d13"
_EXTENDED_KEY_USAGE = "551d25"
_SERVER_AUTH = "2b06010505070301"
_CLIENT_AUTH = "2b06010505070302"
# Named bits, highest first, with how many of the last byte are not used.
_DIGITAL_SIGNATURE = b"\x07\x80"
_KEY_CERT_SIGN = b"\x02\x04"


def issue_device() -> bytes:
    """Return a new Ed25519 key and its certificate, one PEM after the other."""
    key = SigningKey.generate()
    purposes = _sequence(_object_id(_SERVER_AUTH), _object_id(_CLIENT_AUTH))
    certificate = _issue(
        _DEVICE_NAME,
        key,
        1 + secrets.randbits(_SERIAL_BITS - 1),
        _extension(_BASIC_CONSTRAINTS, _sequence(), critical=True),
        _extension(_KEY_USAGE, _der(_BIT_STRING, _DIGITAL_SIGNATURE), critical=True),
        _extension(_EXTENDED_KEY_USAGE, purposes, critical=False),
    )
    return _key_pem(key) + certificate


def issue_authority() -> bytes:
    """Return the authority's certificate as PEM; equal bytes each time."""
    # It is an authority, and not of other authorities.
    constraints = _sequence(_der(_BOOLEAN, b"\xff"), _integer(0))
    return _issue(
        _AUTHORITY_NAME,
        _authority_key(),
        1,
        _extension(_BASIC_CONSTRAINTS, constraints, critical=True),
        _extension(_KEY_USAGE, _der(_BIT_STRING, _KEY_CERT_SIGN), critical=True),
    )


def _authority_key() -> SigningKey:
    return SigningKey(hashlib.sha256(AUTHORITY_PHRASE).digest())


def _issue(name: str, key: SigningKey, serial: int, *extensions: bytes) -> bytes:
    """Return a certificate that the authority signs, as PEM."""
    signed = _sequence(
        _der(_VERSION, _integer(2)),  # which is called version 3
        _integer(serial),
        _algorithm(),
        _name(_AUTHORITY_NAME),
        _sequence(
            _der(_UTC_TIME, _BEGIN.encode()), _der(_GENERALIZED_TIME, _END.encode())
        ),
        _name(name),
        _sequence(_algorithm(), _bits(bytes(key.verify_key))),
        _der(_EXTENSIONS, _sequence(*extensions)),
    )
    signature = _authority_key().sign(signed).signature
    certificate = _sequence(signed, _algorithm(), _bits(signature))
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def _key_pem(key: SigningKey) -> bytes:
    """Return a private key as PKCS#8 in PEM."""
    private = _der(_OCTET_STRING, _der(_OCTET_STRING, bytes(key)))
    text = base64.b64encode(_sequence(_integer(0), _algorithm(), private)).decode()
    lines = ["-----BEGIN PRIVATE KEY-----", *textwrap.wrap(text, 64)]
    return "\n".join([*lines, "-----END PRIVATE KEY-----", ""]).encode()


def _name(common: str) -> bytes:
    pair = _sequence(_object_id(_COMMON_NAME), _der(_UTF8_STRING, common.encode()))
    return _sequence(_der(_SET, pair))


def _extension(kind: str, value: bytes, *, critical: bool) -> bytes:
    mark = _der(_BOOLEAN, b"\xff") if critical else b""
    return _sequence(_object_id(kind), mark, _der(_OCTET_STRING, value))


def _algorithm() -> bytes:
    return _sequence(_object_id(_ED25519))


def _object_id(content: str) -> bytes:
    return _der(_OBJECT_ID, bytes.fromhex(content))


def _integer(value: int) -> bytes:
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


def _bits(data: bytes) -> bytes:
    return _der(_BIT_STRING, b"\0" + data)


def _sequence(*values: bytes) -> bytes:
    return _der(_SEQUENCE, b"".join(values))


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(size)]) + size + content
