"""Signatures of commits in detached metadata, and ed25519 `ostree.sign`; pure.

A `.commitmeta` is an `a{sv}` that no checksum covers; its key "ostree.sign.ed25519"
holds an `aay` of 64-byte signatures over the exact bytes of the `.commit` object,
"ostree.gpgsigs" an `aay` of binary detached OpenPGP signatures over the same bytes.
Formats: libostree `ostree-sign-ed25519.c` and `ostree-core.h`.
"""

from __future__ import annotations

import binascii
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from p2p.errors import (
    FormatError,
    LimitError,
    RevokedError,
    SignatureError,
    UnsignedError,
)
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    Metadata,
    checksum_of,
    lookup,
    parse_metadata,
    serialize_metadata,
)

KeyId = NewType("KeyId", str)
"""A key as people are told of it: `ed25519:BASE64` or `gpg:FINGERPRINT`."""

PUBLIC_BYTES = 32
SEED_BYTES = 32
SIGNATURE_BYTES = 64
# One ed25519 signature takes 95 bytes and an RSA-4096 one 600: room for a hundred,
# and little enough to take from a stranger before anything about it is known.
MAX_COMMITMETA_BYTES = 64 << 10
# No publisher signs one commit with more keys; each entry costs a verification.
MAX_SIGNATURES = 64
# The largest OpenPGP signatures in use, with room; a stranger can pad the part of
# one that it does not cover, so longer ones are never merged.
MAX_SIGNATURE_BYTES = 8 << 10
# Signatures times keys times what one attempt costs, in bytes hashed: the curve
# costs what hashing 32 KiB costs, and a GiB is about three seconds of one core.
MAX_WORK_BYTES = 1 << 30
_ATTEMPT_BYTES = 32 << 10
_SIGNATURES = "aay"
_NAMED_KEYS = 3


class SignatureKind(StrEnum):
    """The two kinds of signatures that are known here."""

    ED25519 = "ed25519"
    GPG = "gpg"

    @property
    def metadata_key(self) -> str:
        """The key of the detached metadata that holds them."""
        return _METADATA_KEYS[self]


_METADATA_KEYS = {
    SignatureKind.ED25519: "ostree.sign.ed25519",
    SignatureKind.GPG: "ostree.gpgsigs",
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An ed25519 public key; its text form is the base64 of its 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != PUBLIC_BYTES:
            raise FormatError(f"an ed25519 public key of {len(self.raw)} bytes")

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Return the key of a base64 text; FormatError says what it is instead."""
        data = _decode_base64(text)
        if len(data) == SEED_BYTES + PUBLIC_BYTES:
            raise FormatError("an ed25519 secret key where a public one belongs")
        return cls(data)

    def __str__(self) -> str:
        return _encode_base64(self.raw)

    @property
    def id(self) -> KeyId:
        """What messages call this key."""
        return KeyId(f"{SignatureKind.ED25519}:{self}")


@dataclass(frozen=True, slots=True, repr=False)
class SecretKey:
    """An ed25519 secret key; its text form is the base64 of seed and public key."""

    seed: bytes
    public: PublicKey

    @classmethod
    def from_seed(cls, seed: bytes) -> SecretKey:
        """Return the key that a seed of 32 bytes stands for; FormatError if longer."""
        if len(seed) != SEED_BYTES:
            raise FormatError(f"an ed25519 seed of {len(seed)} bytes")
        public, _ = crypto_sign_seed_keypair(seed)
        return cls(seed, PublicKey(public))

    @classmethod
    def parse(cls, text: str) -> SecretKey:
        """Return the key of libostree's text form; FormatError says what is wrong."""
        data = _decode_base64(text)
        if len(data) == PUBLIC_BYTES:
            raise FormatError("an ed25519 public key where a secret one belongs")
        if len(data) != SEED_BYTES + PUBLIC_BYTES:
            raise FormatError(f"an ed25519 secret key of {len(data)} bytes")
        key = cls.from_seed(data[:SEED_BYTES])
        if key.public.raw != data[SEED_BYTES:]:
            raise FormatError("an ed25519 secret key whose public half is not its own")
        return key

    def to_text(self) -> str:
        """Return libostree's text form: the secret itself, for its file only."""
        return _encode_base64(self.seed + self.public.raw)

    def __repr__(self) -> str:
        return f"SecretKey(public={self.public})"


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A signature that was verified over a commit, and the key that made it."""

    kind: SignatureKind
    key: KeyId
    signature: bytes


def sign_commit(commit: bytes, key: SecretKey) -> bytes:
    """Return the 64-byte signature of a `.commit` object's bytes."""
    return crypto_sign(commit, key.seed + key.public.raw)[:SIGNATURE_BYTES]


# -- detached metadata -----------------------------------------------------------------


def parse_signatures(
    commitmeta: bytes | None, kind: SignatureKind
) -> tuple[bytes, ...]:
    """Return the signatures of one kind, unverified and without repetitions.

    None stands for a commit without detached metadata. A value of another type
    than `aay` counts as none, as it does for libostree.

    Raises:
        FormatError: the metadata is no `a{sv}` in normal form.
        LimitError: it is too large or holds too many signatures.

    """
    found = lookup(_parse(commitmeta), kind.metadata_key, _SIGNATURES) or ()
    if len(found) > MAX_SIGNATURES:
        raise LimitError(f"{len(found)} {kind} signatures on one commit")
    return tuple(dict.fromkeys(found))


def add_signature(
    commitmeta: bytes | None,
    signature: bytes,
    kind: SignatureKind = SignatureKind.ED25519,
) -> bytes:
    """Return the metadata with a signature added; all else stays as it is.

    Raises:
        FormatError: the metadata cannot be read, or its key has another type.
        LimitError: there is no room for another signature.

    """
    metadata = _parse(commitmeta)
    key = kind.metadata_key
    present = any(name == key for name, _ in metadata)
    found = lookup(metadata, key, _SIGNATURES)
    if present and found is None:
        raise FormatError(f"detached metadata: {key} is not an array of signatures")
    if commitmeta is not None and found and signature in found:
        return commitmeta
    entry = (key, Variant(_SIGNATURES, (*(found or ()), signature)))
    if len(entry[1].value) > MAX_SIGNATURES:
        raise LimitError(f"detached metadata: no room for another {kind} signature")
    data = serialize_metadata(
        _replace(metadata, entry) if present else (*metadata, entry)
    )
    if len(data) > MAX_COMMITMETA_BYTES:
        raise LimitError(f"detached metadata would grow to {len(data)} bytes")
    return data


def merge_signatures(
    mine: bytes | None,
    mine_verified: Iterable[VerifiedSignature],
    theirs: Iterable[VerifiedSignature],
) -> bytes | None:
    """Return my metadata with the verified signatures that it lacks.

    One signature a key: whoever passes a commit on can alter the unsigned part of
    an OpenPGP signature at will, so another form of what is there adds nothing.
    What does not fit any more is left out; `mine` is never worse for it.
    """
    keys = {signature.key for signature in mine_verified}
    for new in theirs:
        if new.key in keys or len(new.signature) > MAX_SIGNATURE_BYTES:
            continue
        try:
            mine = add_signature(mine, new.signature, new.kind)
        except LimitError:
            continue
        keys.add(new.key)
    return mine


def check_commitmeta_size(commitmeta: bytes | None) -> None:
    """Raise LimitError if detached metadata is larger than any publisher's."""
    if commitmeta is not None and len(commitmeta) > MAX_COMMITMETA_BYTES:
        raise LimitError(
            f"detached metadata of {len(commitmeta)} bytes, more than "
            f"{MAX_COMMITMETA_BYTES}"
        )


def _parse(commitmeta: bytes | None) -> Metadata:
    check_commitmeta_size(commitmeta)
    return () if commitmeta is None else parse_metadata(commitmeta)


def _replace(metadata: Metadata, entry: tuple[str, Variant]) -> Metadata:
    """Return the metadata with the first value under the entry's key replaced."""
    at = next(i for i, (name, _) in enumerate(metadata) if name == entry[0])
    return (*metadata[:at], entry, *metadata[at + 1 :])


# -- verification ----------------------------------------------------------------------


def verify_ed25519(
    commit: bytes,
    commitmeta: bytes | None,
    *,
    trusted: Collection[PublicKey],
    revoked: Collection[PublicKey] = (),
) -> tuple[VerifiedSignature, ...]:
    """Return every good signature by a trusted key: at least one, one a key.

    Raises:
        UnsignedError: there is no ed25519 signature at all.
        RevokedError: all that verify were made by revoked keys.
        SignatureError: none verifies with any of the keys.
        FormatError, LimitError: the metadata is broken, too large, or more work
            than a commit is worth.

    """
    signatures = parse_signatures(commitmeta, SignatureKind.ED25519)
    if not signatures:
        raise UnsignedError(f"commit {checksum_of(commit)} has no ed25519 signature")
    usable = [key for key in dict.fromkeys(trusted) if key not in revoked]
    if good := _verify(commit, signatures, usable):
        return good
    if by_revoked := _verify(commit, signatures, list(dict.fromkeys(revoked))):
        raise RevokedError(
            f"commit {checksum_of(commit)} is signed only by revoked keys: "
            + _name_keys([signature.key for signature in by_revoked])
        )
    raise SignatureError(
        f"commit {checksum_of(commit)}: {_count(len(signatures), 'ed25519 signature')},"
        f" none by a trusted key; trusted: {_name_keys([key.id for key in usable])}"
    )


def _verify(
    commit: bytes, signatures: Collection[bytes], keys: list[PublicKey]
) -> tuple[VerifiedSignature, ...]:
    work = len(signatures) * len(keys) * (len(commit) + _ATTEMPT_BYTES)
    if work > MAX_WORK_BYTES:
        raise LimitError(
            f"commit {checksum_of(commit)}: {len(commit)} bytes with "
            f"{len(signatures)} signatures and {len(keys)} keys is too much to verify"
        )
    left = list(keys)
    good = []
    for signature in signatures:
        signed = signature + commit
        key = next((key for key in left if _opens(signature, signed, key)), None)
        if key is not None:
            left.remove(key)
            kind = SignatureKind.ED25519
            good.append(VerifiedSignature(kind, key.id, signature))
    return tuple(good)


def _opens(signature: bytes, signed: bytes, key: PublicKey) -> bool:
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signed, key.raw)
    except BadSignatureError:
        return False
    return True


def _name_keys(keys: list[KeyId]) -> str:
    more = len(keys) - _NAMED_KEYS
    named = ", ".join(keys[:_NAMED_KEYS]) or "none"
    return f"{named} and {more} more" if more > 0 else named


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _decode_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.strip(), strict_mode=True)
    except ValueError as error:
        raise FormatError(f"not a key in base64: {error}") from None


def _encode_base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()
