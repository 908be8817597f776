"""What an agent says of itself by mDNS, as the bytes of a TXT record; pure.

A record holds these strings (RFC 6763 §6), every value raw bytes unless said:

    v=  newest protocol version spoken, decimal 1 to 255; required
    i=  instance: the 16 random bytes of HELLO, drawn at each start; required
    s=  site tag, 8 bytes: the site's name, hashed; absent where none is known
    e=  epoch, big-endian without leading zeros, at most 8 bytes; absent means 0
    c=  filter of the commits held complete, and of their refs
    p=  filter of the commits held in part, and of the refs they are fetched for

A filter that is absent says nothing; an empty one says "none". Else its first byte
is k (1 to 16) and the rest a Bloom filter of m = 8 times that many bits. An item's
16-byte hash is two little-endian numbers a and b; its bits are (a + j·(b|1)) mod
2^64 mod m for j < k; bit n is `1 << n % 8` of byte n // 8. Hashes are BLAKE2b with

    key     empty in open membership; in a fleet derived from its secret
    salt    the instance
    person  "p2p filter" for a hash of 16 bytes, "p2p site" for one of 8; zero-padded
    input   b"c" and 32 bytes of a commit's checksum, or b"r", the collection id,
            a zero byte and the ref; for the site its name; text as UTF-8

So a stranger to a fleet cannot ask a filter anything, and because of the salt not
even see that two devices hold the same, or that one lags behind. The instance is
random in both memberships: a name that outlives a restart would let anybody follow
a device from network to network, and sessions tell the device id to whom it is due.
Unknown keys are ignored, the first of equal keys counts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NewType, Self

from p2p.errors import ConfigError, FormatError, LimitError
from p2p.ostree.objects import Checksum
from p2p.wire.limits import INSTANCE_BYTES

InstanceId = NewType("InstanceId", bytes)
"""One run of one agent: the random bytes of its HELLO."""

VERSION = 1
SITE_BYTES = 8
# What we write fits in 400 bytes; RFC 6763 §6.2 calls 1,300 the most that is wise.
MAX_WRITTEN_BYTES = 400
MAX_READ_BYTES = 1300
MAX_COMPLETE_BYTES = 224
MAX_PARTIAL_BYTES = 96
MIN_SECRET_BYTES = 16

_MAX_STRING_BYTES = 255
_MAX_ROUNDS = 16
# 10 bits an item and 7 rounds: 0.8 % of the answers are a needless "perhaps".
_BITS_PER_ITEM = 10
# Filters grow in steps, so that their size does not count what is held.
_STEP_BYTES = 16
_MAX_EPOCH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Ref:
    """A branch as filters name it; `collection` is "" where it has none."""

    name: str
    collection: str = ""


Item = Checksum | Ref
"""What a filter is asked for: a commit or a ref."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A Bloom filter; empty `bits` hold nothing."""

    rounds: int
    bits: bytes

    def holds(self, digest: bytes) -> bool:
        """Whether the item with this 16-byte hash may have been put in."""
        return bool(self.bits) and all(
            self.bits[n >> 3] >> (n & 7) & 1
            for n in _positions(digest, self.rounds, len(self.bits) * 8)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advert:
    """What one agent says; compare and ask it with an `AdvertKey`."""

    instance: InstanceId
    version: int = VERSION
    epoch: int = 0
    site: bytes | None = None
    complete: Filter | None = None
    partial: Filter | None = None


class AdvertKey:
    """Makes adverts and asks those of others, with the key of one membership."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take a BLAKE2b key of at most 64 bytes; see `open` and `fleet`."""
        self._key = key

    @classmethod
    def open(cls) -> Self:
        """Return the key of open membership, which is none."""
        return cls(b"")

    @classmethod
    def fleet(cls, secret: bytes) -> Self:
        """Return the key of a fleet: BLAKE2b-256 of its secret, person "p2p key".

        Raises:
            ConfigError: the secret is too short to resist guessing.

        """
        if len(secret) < MIN_SECRET_BYTES:
            raise ConfigError(
                "fleet secret", f"it needs at least {MIN_SECRET_BYTES} bytes"
            )
        return cls(hashlib.blake2b(secret, digest_size=32, person=b"p2p key").digest())

    def make(
        self,
        instance: InstanceId,
        *,
        site: str = "",
        epoch: int = 0,
        complete: Collection[Item] | None = None,
        partial: Collection[Item] | None = None,
    ) -> Advert:
        """Return the advert of an agent; None for holdings says nothing of them."""
        return Advert(
            instance=instance,
            epoch=epoch,
            site=self._site(site, instance) if site else None,
            complete=self._filter(complete, instance, MAX_COMPLETE_BYTES),
            partial=self._filter(partial, instance, MAX_PARTIAL_BYTES),
        )

    def may_have(self, advert: Advert, item: Item) -> bool:
        """Whether it may hold the commit, or all of a commit of the ref."""
        return self._asked(advert, advert.complete, item)

    def may_have_part(self, advert: Advert, item: Item) -> bool:
        """Whether it may hold a part of the commit, or of one of the ref."""
        return self._asked(advert, advert.partial, item)

    def at_site(self, advert: Advert, site: str) -> bool:
        """Whether it says that it is at this site."""
        return advert.site == self._site(site, advert.instance)

    def _asked(self, advert: Advert, told: Filter | None, item: Item) -> bool:
        return told is None or told.holds(self._digest(item, advert.instance))

    def _site(self, name: str, instance: InstanceId) -> bytes:
        return self._hash(name.encode(), instance, b"p2p site", SITE_BYTES)

    def _digest(self, item: Item, instance: InstanceId) -> bytes:
        if isinstance(item, Ref):
            text = b"r%b\0%b" % (item.collection.encode(), item.name.encode())
        else:
            text = b"c" + bytes.fromhex(item)
        return self._hash(text, instance, b"p2p filter", 16)

    def _hash(self, text: bytes, instance: bytes, person: bytes, size: int) -> bytes:
        return hashlib.blake2b(
            text, digest_size=size, key=self._key, salt=instance, person=person
        ).digest()

    def _filter(
        self, items: Collection[Item] | None, instance: InstanceId, max_bytes: int
    ) -> Filter | None:
        if items is None:
            return None
        if not items:
            return Filter(0, b"")
        steps = math.ceil(len(items) * _BITS_PER_ITEM / 8 / _STEP_BYTES)
        bits = bytearray(min(steps * _STEP_BYTES, max_bytes))
        best = round(len(bits) * 8 / len(items) * math.log(2))
        rounds = max(1, min(best, _MAX_ROUNDS))
        for item in items:
            for n in _positions(self._digest(item, instance), rounds, len(bits) * 8):
                bits[n >> 3] |= 1 << (n & 7)
        return Filter(rounds, bytes(bits))


def encode(advert: Advert) -> bytes:
    """Return the RDATA of the TXT record; LimitError if it exceeds 400 bytes."""
    epoch = advert.epoch.to_bytes(_MAX_EPOCH_BYTES).lstrip(b"\0")
    strings = [b"v=%d" % advert.version, b"i=" + advert.instance]
    if advert.site is not None:
        strings.append(b"s=" + advert.site)
    if epoch:
        strings.append(b"e=" + epoch)
    for key, told in ((b"c=", advert.complete), (b"p=", advert.partial)):
        if told is not None:
            strings.append(
                key + (bytes([told.rounds]) + told.bits if told.bits else b"")
            )
    size = sum(1 + len(string) for string in strings)
    if size > MAX_WRITTEN_BYTES or max(map(len, strings)) > _MAX_STRING_BYTES:
        raise LimitError(f"an advert of {size} bytes; {MAX_WRITTEN_BYTES} are allowed")
    return b"".join(bytes([len(string)]) + string for string in strings)


def decode(rdata: bytes) -> Advert:
    """Return the advert in the RDATA of a TXT record; FormatError if it is none."""
    if len(rdata) > MAX_READ_BYTES:
        raise LimitError(f"a TXT record of {len(rdata)} bytes")
    values: dict[bytes, bytes] = {}
    for string in _strings(rdata):
        key, sign, value = string.partition(b"=")
        if key and sign:
            values.setdefault(key.lower(), value)
    return Advert(
        instance=InstanceId(_fixed(values, b"i", INSTANCE_BYTES)),
        version=_version(values.get(b"v", b"")),
        epoch=_epoch(values.get(b"e", b"")),
        site=_fixed(values, b"s", SITE_BYTES) if b"s" in values else None,
        complete=_told(values.get(b"c")),
        partial=_told(values.get(b"p")),
    )


def _positions(digest: bytes, rounds: int, size: int) -> Iterator[int]:
    first = int.from_bytes(digest[:8], "little")
    step = int.from_bytes(digest[8:], "little") | 1
    for j in range(rounds):
        yield (first + j * step) % (1 << 64) % size


def _strings(rdata: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(rdata):
        end = at + 1 + rdata[at]
        if end > len(rdata):
            raise FormatError("a string of the TXT record is cut short")
        yield rdata[at + 1 : end]
        at = end


def _fixed(values: dict[bytes, bytes], key: bytes, size: int) -> bytes:
    value = values.get(key, b"")
    if len(value) != size:
        raise FormatError(f"TXT key {key.decode()} has {len(value)} bytes, not {size}")
    return value


def _version(text: bytes) -> int:
    # isdigit() of bytes knows only ASCII; three digits keep int() small.
    if not text.isdigit() or len(text) > 3 or not 1 <= int(text) <= 255:
        raise FormatError("TXT key v is not a protocol version")
    return int(text)


def _epoch(value: bytes) -> int:
    if len(value) > _MAX_EPOCH_BYTES or value[:1] == b"\0":
        raise FormatError("TXT key e is not an epoch")
    return int.from_bytes(value)


def _told(value: bytes | None) -> Filter | None:
    if value is None:
        return None
    if not value:
        return Filter(0, b"")
    if not 1 <= value[0] <= _MAX_ROUNDS or len(value) < 2:
        raise FormatError("a filter in the TXT record is not one")
    return Filter(value[0], value[1:])
