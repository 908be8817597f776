"""OpenPGP public keys as bytes: armour, keybox files, and merging of keyrings; pure.

Nothing is verified here: `gpgv` checks every self-signature when a key is used. This
only takes key files apart far enough to join those of several places into the one
keyring that gpgv reads, so that a revocation found in any of them counts.
Formats: RFC 4880 §4.2 (packets), §6.2 (armour); GnuPG `kbx/keybox-blob.c`.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from p2p.errors import FormatError, LimitError

# The keyring of Debian, with a thousand keys, has 30 MB; a remote's has a few KB.
MAX_KEYRING_BYTES = 4 << 20
_ARMOUR = re.compile(
    rb"^-----BEGIN PGP ([A-Z ]+)-----[ \t]*\r?$(.*?)^-----END PGP \1-----",
    re.DOTALL | re.MULTILINE,
)
_PUBLIC_BLOCK = b"PUBLIC KEY BLOCK"
_KEYBOX_MAGIC = b"KBXf"
_KEYBOX_OPENPGP_BLOB = 2
_BLOB_HEADER_BYTES = 16


class Tag(IntEnum):
    """The packet kinds that matter here; others are left out of a keyring."""

    SIGNATURE = 2
    SECRET_KEY = 5
    PUBLIC_KEY = 6
    SECRET_SUBKEY = 7
    USER_ID = 13
    PUBLIC_SUBKEY = 14
    USER_ATTRIBUTE = 17


_COMPONENTS = (Tag.PUBLIC_KEY, Tag.USER_ID, Tag.PUBLIC_SUBKEY, Tag.USER_ATTRIBUTE)


class Packet(NamedTuple):
    """One packet without its header."""

    tag: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """A public key: its components in order, each with the signatures on it.

    The first component is the primary key.
    """

    components: tuple[tuple[Packet, tuple[Packet, ...]], ...]

    @property
    def primary(self) -> Packet:
        """The primary key, which tells certificates apart."""
        return self.components[0][0]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of a version 4 key (RFC 4880 §12.2); else its SHA-256."""
        body = self.primary.body
        if body[:1] != b"\x04":
            return hashlib.sha256(body).hexdigest().upper()
        framed = b"\x99" + len(body).to_bytes(2, "big") + body
        return hashlib.sha1(framed, usedforsecurity=False).hexdigest().upper()

    def merged(self, other: Certificate) -> Certificate:
        """Return this key with the components and signatures of another copy."""
        components = {part: dict.fromkeys(signed) for part, signed in self.components}
        for part, signed in other.components:
            components.setdefault(part, {}).update(dict.fromkeys(signed))
        # A user id goes before the subkeys wherever it came from.
        ordered = sorted(components.items(), key=lambda item: _rank(item[0]))
        return Certificate(tuple((part, tuple(signed)) for part, signed in ordered))


def _rank(packet: Packet) -> int:
    return {Tag.PUBLIC_KEY: 0, Tag.PUBLIC_SUBKEY: 2}.get(Tag(packet.tag), 1)


def parse_keyring(data: bytes) -> tuple[Certificate, ...]:
    """Return the keys of a keyring: OpenPGP packets, their armour, or a keybox.

    Raises:
        FormatError: it is none of these, holds no key, or holds a secret one.
        LimitError: it is larger than MAX_KEYRING_BYTES.

    """
    if len(data) > MAX_KEYRING_BYTES:
        raise LimitError(f"keyring larger than {MAX_KEYRING_BYTES} bytes")
    certificates = merge_keyrings(_parse_blocks(_blocks(data)))
    if not certificates:
        raise FormatError("no OpenPGP public key in it")
    return certificates


def merge_keyrings(certificates: Iterable[Certificate]) -> tuple[Certificate, ...]:
    """Return each key once, with all that any copy of it holds."""
    merged: dict[Packet, Certificate] = {}
    for new in certificates:
        known = merged.get(new.primary)
        merged[new.primary] = known.merged(new) if known else new
    return tuple(merged.values())


def serialize_keyring(certificates: Iterable[Certificate]) -> bytes:
    """Return a keyring of OpenPGP packets, which gpg, gpgv and libostree read."""
    return b"".join(
        _serialize_packet(packet)
        for certificate in certificates
        for part, signed in certificate.components
        for packet in (part, *signed)
    )


def is_armoured(data: bytes) -> bool:
    """Tell whether the data is text with an armoured block in it."""
    return _ARMOUR.search(data) is not None


def _blocks(data: bytes) -> list[bytes]:
    """Return the runs of packets in a keyring of any form."""
    if data[8:12] == _KEYBOX_MAGIC:
        return _keybox_blocks(data)
    armoured = list(_ARMOUR.finditer(data))
    if not armoured:
        return [data]
    for match in armoured:
        if match[1] != _PUBLIC_BLOCK:
            raise FormatError(
                f"armour of a PGP {match[1].decode()}, not of public keys"
            )
    return [_dearmour(match[2]) for match in armoured]


def _dearmour(text: bytes) -> bytes:
    lines = [line.strip() for line in text.split(b"\n")[1:]]
    # Headers such as "Comment: …" end at the first empty line; "=…" is a CRC.
    body = lines[lines.index(b"") + 1 :]
    encoded = b"".join(line for line in body if not line.startswith(b"="))
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        raise FormatError(f"armour that is not base64: {error}") from None


def _keybox_blocks(data: bytes) -> list[bytes]:
    blocks = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        blob = data[at : at + size]
        if size < _BLOB_HEADER_BYTES or len(blob) != size:
            raise FormatError("keybox with a blob of the wrong size")
        if blob[4] == _KEYBOX_OPENPGP_BLOB:
            start = int.from_bytes(blob[8:12], "big")
            length = int.from_bytes(blob[12:16], "big")
            if start + length > size:
                raise FormatError("keybox with a key outside its blob")
            blocks.append(blob[start : start + length])
        at += size
    return blocks


def _parse_blocks(blocks: Iterable[bytes]) -> Iterable[Certificate]:
    for block in blocks:
        components: list[tuple[Packet, list[Packet]]] = []
        for packet in _parse_packets(block):
            if packet.tag in {Tag.SECRET_KEY, Tag.SECRET_SUBKEY}:
                raise FormatError("a secret key where public ones belong")
            if packet.tag == Tag.PUBLIC_KEY and components:
                yield _certificate(components)
                components = []
            if packet.tag in _COMPONENTS:
                if not components and packet.tag != Tag.PUBLIC_KEY:
                    raise FormatError("OpenPGP data that does not begin with a key")
                components.append((packet, []))
            elif packet.tag == Tag.SIGNATURE:
                if not components:
                    raise FormatError("an OpenPGP signature where keys belong")
                components[-1][1].append(packet)
        if components:
            yield _certificate(components)


def _certificate(components: list[tuple[Packet, list[Packet]]]) -> Certificate:
    return Certificate(tuple((part, tuple(signed)) for part, signed in components))


# -- packets ---------------------------------------------------------------------------


def _parse_packets(data: bytes) -> Iterable[Packet]:
    at = 0
    while at < len(data):
        first = data[at]
        if not first & 0x80:
            raise FormatError("not OpenPGP data")
        read = _new_length if first & 0x40 else _old_length
        length, start = read(data, at)
        end = start + length
        if end > len(data):
            raise FormatError("an OpenPGP packet that is cut off")
        tag = first & 0x3F if first & 0x40 else first >> 2 & 0x0F
        yield Packet(tag, data[start:end])
        at = end


def _old_length(data: bytes, at: int) -> tuple[int, int]:
    """Return a body's length and where it starts, for a header of the old form."""
    kind = data[at] & 3
    if kind == 3:
        raise FormatError("an OpenPGP packet of indeterminate length")
    start = at + 1 + (1 << kind)
    return _number(data, at + 1, start), start


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    """Return a body's length and where it starts, for a header of the new form."""
    first = _number(data, at + 1, at + 2)
    if first < 192:
        return first, at + 2
    if first < 224:
        return (first - 192 << 8) + _number(data, at + 2, at + 3) + 192, at + 3
    if first < 255:
        raise FormatError("an OpenPGP packet in parts")
    return _number(data, at + 2, at + 6), at + 6


def _number(data: bytes, start: int, end: int) -> int:
    if end > len(data):
        raise FormatError("an OpenPGP packet that is cut off")
    return int.from_bytes(data[start:end], "big")


def _serialize_packet(packet: Packet) -> bytes:
    size = len(packet.body)
    if packet.tag > 15:
        return bytes((0xC0 | packet.tag, 255)) + size.to_bytes(4, "big") + packet.body
    kind = 0 if size <= 0xFF else 1 if size <= 0xFFFF else 2
    header = bytes((0x80 | packet.tag << 2 | kind,))
    return header + size.to_bytes(1 << kind, "big") + packet.body
