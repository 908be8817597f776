"""A device's own Ed25519 key, for what it signs besides TLS (RFC 8410).

A fleet's devices may have keys of another kind; those sign nothing but TLS.
"""

from __future__ import annotations

import re
import ssl
from typing import Final

from nacl.signing import SigningKey, VerifyKey

from p2p.net.identity import Identity, read_pem

_SEED_BYTES: Final = 32
# PKCS#8 without attributes, and SubjectPublicKeyInfo, up to the key itself.
_PRIVATE: Final = bytes.fromhex("302e020100300506032b657004220420")
_PUBLIC: Final = bytes.fromhex("302a300506032b6570032100")
_BLOCK: Final = re.compile(
    "-----BEGIN PRIVATE KEY-----(.*?)-----END PRIVATE KEY-----", re.DOTALL
)


def load_device_key(identity: Identity) -> SigningKey | None:
    """Return a device's key; None if it is not Ed25519.

    Raises:
        ConfigError: its file cannot be read.

    """
    block = _BLOCK.search(read_pem(identity.key_file))
    if block is None:
        return None
    der = ssl.PEM_cert_to_DER_cert(
        f"-----BEGIN CERTIFICATE-----{block[1]}-----END CERTIFICATE-----"
    )
    if not der.startswith(_PRIVATE) or len(der) != len(_PRIVATE) + _SEED_BYTES:
        return None
    return SigningKey(der[len(_PRIVATE) :])


def encode_public_key(key: VerifyKey) -> bytes:
    """Return a key as DER SubjectPublicKeyInfo, whose SHA-256 is the device id."""
    return _PUBLIC + key.encode()


def decode_public_key(der: bytes) -> VerifyKey | None:
    """Return the Ed25519 key that this is; None if it is something else."""
    if not der.startswith(_PUBLIC) or len(der) != len(_PUBLIC) + _SEED_BYTES:
        return None
    return VerifyKey(der[len(_PUBLIC) :])
