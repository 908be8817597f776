"""Issues the certificates of open membership; the only importer of cryptography.

Loaded once in a device's life, when it has no certificate yet: the library takes
8 MB. The authority's key is published on purpose: whoever can read this file is a
member. It exists because Python's ssl accepts no client certificate without an
authority, and so that open and fleet membership are one code path.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# The Ed25519 seed of the authority is the SHA-256 of this.
AUTHORITY_PHRASE = b"ostree-p2p open membership, authority 1"
_AUTHORITY_NAME = "ostree-p2p open membership 1"
_DEVICE_NAME = "ostree-p2p device"
# A device that has no idea of the time must issue itself a certificate too, so the
# times say nothing: from the epoch to "no well-defined end" (RFC 5280 §4.1.2.5).
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def issue_device() -> bytes:
    """Return a new Ed25519 key and its certificate, one PEM after the other."""
    key = Ed25519PrivateKey.generate()
    certificate = (
        _builder(_DEVICE_NAME, key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_data=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .sign(_authority_key(), None)
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def issue_authority() -> bytes:
    """Return the authority's certificate as PEM; equal bytes each time."""
    key = _authority_key()
    certificate = (
        _builder(_AUTHORITY_NAME, key)
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_data=False), critical=True)
        .sign(key, None)
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _authority_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(
        hashlib.sha256(AUTHORITY_PHRASE).digest()
    )


def _builder(name: str, key: Ed25519PrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(_AUTHORITY_NAME))
        .public_key(key.public_key())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_data: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs_data,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs_data,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
