"""Kinds of fields: how a value is put into MessagePack and checked coming out.

Both directions check the same bounds and raise RuleError.
"""

from __future__ import annotations

import re
import struct
from binascii import unhexlify
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire import varint
from p2p.wire.limits import (
    MAX_CLOSURE_OBJECTS,
    MAX_OBJECT_UNITS,
    PREFIX_BYTES,
    U32,
    U63,
)
from p2p.wire.messages import DeviceId, Prefix, UnitMap, Version
from p2p.wire.rule import RuleError


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message; `label` says in the documentation what it holds."""

    label: str
    pack: Callable[[Any], object]
    unpack: Callable[[Any], Any]


_POWERS = {(1 << bits) - 1: f"2^{bits}-1" for bits in (16, 32, 63)}


def integer(least: int, most: int) -> Field:
    """Return a field for whole numbers from `least` to `most`."""

    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise RuleError(f"{value!r:.40} is no integer from {least} to {most}")
        return value

    return Field(f"int {least}..{_POWERS.get(most, most)}", check, check)


def choice(kind: type[IntEnum], fallback: IntEnum | None = None) -> Field:
    """Return a field for an enumeration; unknown numbers become the fallback."""

    def unpack(value: Any) -> IntEnum:
        if type(value) is int and value in values:
            return values[value]
        if type(value) is int and fallback is not None and 0 <= value <= U32:
            return fallback
        raise RuleError(f"{value!r:.40} is no {kind.__name__}")

    def pack(value: Any) -> int:
        if type(value) is not kind:
            raise RuleError(f"{value!r:.40} is no {kind.__name__}")
        return int(value)

    values = {int(item): item for item in kind}
    label = ", ".join(f"{item.value} {item.name.lower()}" for item in kind)
    return Field(f"int: {label}", pack, unpack)


def _check_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise RuleError(f"{value!r:.40} is no boolean")
    return value


BOOL = Field("bool", _check_bool, _check_bool)

# Text reaches logs and terminals.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def text(limit: int, least: int = 0) -> Field:
    """Return a field for UTF-8 of at most `limit` bytes, no control characters."""

    def check(value: Any) -> str:
        if type(value) is not str:
            raise RuleError(f"{value!r:.40} is no text")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise RuleError(f"{value!r:.40} is no UTF-8") from None
        if not least <= size <= limit:
            raise RuleError(f"text of {size} bytes, not {least} to {limit}")
        if _CONTROL.search(value):
            raise RuleError(f"control characters in {value!r:.80}")
        return value

    return Field(f"str {least}..{limit}", check, check)


def blob(least: int, limit: int, step: int = 1) -> Field:
    """Return a field for `least` to `limit` bytes, a multiple of `step`."""

    def check(value: Any) -> bytes:
        if type(value) is not bytes:
            raise RuleError(f"{value!r:.40} is no byte string")
        if not least <= len(value) <= limit or len(value) % step:
            raise RuleError(f"{len(value)} bytes, not {least} to {limit} by {step}")
        return value

    label = f"bin {least}" if least == limit else f"bin {least}..{limit}"
    return Field(label + (f" by {step}" if step > 1 else ""), check, check)


def _pack_digest(value: Any) -> bytes:
    try:
        digest = unhexlify(value)
    except (ValueError, TypeError):
        digest = b""
    if len(digest) != 32 or value != digest.hex():
        raise RuleError(f"{value!r:.80} is not 64 lower-case hexadecimal digits")
    return digest


def _unpack_digest(value: Any) -> str:
    if type(value) is not bytes or len(value) != 32:
        raise RuleError(f"{value!r:.40} is no 32 bytes")
    return value.hex()


CHECKSUM = Field("bin 32 (checksum)", _pack_digest, _unpack_digest)
DEVICE = Field("bin 32 (device id)", _pack_digest, _unpack_digest)

# -- objects -----------------------------------------------------------------------

# What a commit's closure consists of; commits themselves have their own messages.
KINDS = {
    int(kind): kind
    for kind in (ObjectType.FILE, ObjectType.DIRTREE, ObjectType.DIRMETA)
}
_KIND_BYTES = {kind: bytes((kind,)) for kind in KINDS.values()}
NAME_BYTES = 33


def _check_entries(value: Any, step: int, limit: int) -> int:
    if type(value) is not bytes or len(value) % step:
        raise RuleError(f"{value!r:.40} is no list of {step} bytes each")
    count = len(value) // step
    if not 1 <= count <= limit:
        raise RuleError(f"{count} entries, not 1 to {limit}")
    return count


def pack_names(names: Sequence[ObjectName]) -> bytes:
    """Return kind and raw checksum of each object, 33 bytes each."""
    try:
        packed = [_KIND_BYTES[kind] + unhexlify(digits) for digits, kind in names]
    except (ValueError, TypeError, KeyError) as error:
        raise RuleError(f"not an object that is sent: {error}") from None
    if not {NAME_BYTES}.issuperset(map(len, packed)):
        raise RuleError("a checksum that has not 32 bytes")
    return b"".join(packed)


def unpack_names(value: bytes) -> tuple[ObjectName, ...]:
    """Return the names in a multiple of 33 bytes."""
    digits = value.hex()
    try:
        return tuple(
            [
                ObjectName(
                    Checksum(digits[2 * start + 2 : 2 * start + 66]),
                    KINDS[value[start]],
                )
                for start in range(0, len(value), NAME_BYTES)
            ]
        )
    except KeyError as error:
        raise RuleError(f"object of kind {error}") from None


def names(limit: int) -> Field:
    """Return a field for 1 to `limit` object names."""

    def pack(value: Any) -> bytes:
        packed = pack_names(value)
        _check_entries(packed, NAME_BYTES, limit)
        return packed

    def unpack(value: Any) -> tuple[ObjectName, ...]:
        _check_entries(value, NAME_BYTES, limit)
        return unpack_names(value)

    return Field(f"bin 33 x 1..{limit} (names)", pack, unpack)


_ONE_NAME = names(1)
NAME = Field(
    "bin 33 (name)",
    lambda value: _ONE_NAME.pack((value,)),
    lambda value: _ONE_NAME.unpack(value)[0],
)


def prefixes(limit: int) -> Field:
    """Return a field for 1 to `limit` kinds with the start of a checksum."""
    step = 1 + PREFIX_BYTES

    def pack(value: Any) -> bytes:
        try:
            entries = [_KIND_BYTES[kind] + start for kind, start in value]
        except (TypeError, ValueError, KeyError) as error:
            raise RuleError(f"not an object that is sent: {error}") from None
        if not {step}.issuperset(map(len, entries)):
            raise RuleError(f"a prefix that has not {PREFIX_BYTES} bytes")
        packed = b"".join(entries)
        _check_entries(packed, step, limit)
        return packed

    def unpack(value: Any) -> tuple[Prefix, ...]:
        _check_entries(value, step, limit)
        try:
            return tuple(
                [
                    Prefix(KINDS[value[start]], value[start + 1 : start + step])
                    for start in range(0, len(value), step)
                ]
            )
        except KeyError as error:
            raise RuleError(f"object of kind {error}") from None

    return Field(f"bin {step} x 1..{limit} (prefixes)", pack, unpack)


_ABSENT = (1 << 64) - 1


def sizes(limit: int) -> Field:
    """Return a field for lengths of objects, 64-bit big-endian, all ones if absent."""

    def pack(value: Any) -> bytes:
        numbers = [_ABSENT if size is None else size for size in value]
        try:
            packed = struct.Struct(f">{len(numbers)}Q").pack(*numbers)
        except struct.error:
            raise RuleError("a size is no 64-bit integer") from None
        unpack(packed)
        return packed

    def unpack(value: Any) -> tuple[int | None, ...]:
        count = _check_entries(value, 8, limit)
        numbers = struct.Struct(f">{count}Q").unpack(value)
        if any(U63 < number < _ABSENT for number in numbers):
            raise RuleError("an object of more than 2^63 bytes")
        return tuple([None if n == _ABSENT else n for n in numbers])

    return Field(f"bin 8 x 1..{limit} (sizes)", pack, unpack)


_VERSION = struct.Struct(">32sQQ")


def versions(limit: int) -> Field:
    """Return a field for member ids with epoch and seq, 64 bits each big-endian."""

    def pack(value: Any) -> bytes:
        try:
            packed = b"".join(
                [_VERSION.pack(unhexlify(one), epoch, seq) for one, epoch, seq in value]
            )
        except (struct.error, ValueError, TypeError):
            raise RuleError("a version is not a device id and two integers") from None
        unpack(packed)
        return packed

    def unpack(value: Any) -> tuple[Version, ...]:
        if value != b"":
            _check_entries(value, _VERSION.size, limit)
        found = tuple(
            [
                Version(DeviceId(device.hex()), epoch, seq)
                for device, epoch, seq in _VERSION.iter_unpack(value)
            ]
        )
        if any(epoch > U63 or seq > U63 for _, epoch, seq in found):
            raise RuleError("an epoch or seq above 2^63-1")
        return found

    return Field(f"bin 48 x 0..{limit} (versions)", pack, unpack)


# -- lists -------------------------------------------------------------------------


def indices(limit: int) -> Field:
    """Return a field for ascending closure indices, as varints of their distances."""

    def check(found: tuple[int, ...]) -> None:
        if not 1 <= len(found) <= limit:
            raise RuleError(f"{len(found)} indices, not 1 to {limit}")
        if found[-1] >= MAX_CLOSURE_OBJECTS:
            raise RuleError(f"index {found[-1]}")

    def pack(value: Any) -> bytes:
        packed = varint.pack_ascending(value)
        check(value)
        return packed

    def unpack(value: Any) -> tuple[int, ...]:
        if type(value) is not bytes:
            raise RuleError(f"{value!r:.40} is no byte string")
        found = varint.unpack_ascending(value, limit)
        check(found)
        return found

    return Field(f"bin, varints x 1..{limit} (indices)", pack, unpack)


def _items(value: Any, limit: int, least: int = 0) -> list[Any]:
    if type(value) is not list or not least <= len(value) <= limit:
        raise RuleError(f"{value!r:.40} is no array of {least} to {limit} items")
    return value


def integers(limit: int, least: int, most: int) -> Field:
    """Return a field for 1 to `limit` integers from `least` to `most`."""

    def unpack(value: Any) -> tuple[int, ...]:
        found = _items(value, limit, 1)
        if not {int}.issuperset(map(type, found)):
            raise RuleError("an array with something else than integers")
        if min(found) < least or max(found) > most:
            raise RuleError(f"an integer not from {least} to {most}")
        return tuple(found)

    def pack(value: Any) -> list[int]:
        unpack(list(value))
        return list(value)

    return Field(f"array of int {least}..{most}, 1..{limit}", pack, unpack)


def tokens(limit: int, length: int) -> Field:
    """Return a field for a set of at most `limit` short names."""
    token = text(length, 1)

    def pack(value: Any) -> list[str]:
        return [token.unpack(item) for item in _items(sorted(value), limit)]

    def unpack(value: Any) -> frozenset[str]:
        found = frozenset([token.unpack(item) for item in _items(value, limit)])
        if len(found) != len(value):
            raise RuleError("the same name twice")
        return found

    return Field(f"array of {token.label}, 0..{limit}, distinct", pack, unpack)


def rows(
    kind: type[Any], limit: int, columns: dict[str, Field], least: int = 0
) -> Field:
    """Return a field for `least` to `limit` tuples.

    Unknown items at the end of a tuple are ignored.
    """
    fields = tuple(columns.values())

    def pack(value: Any) -> list[list[object]]:
        return [
            [field.pack(item) for field, item in zip(fields, row, strict=True)]
            for row in _items(list(value), limit, least)
        ]

    def unpack(value: Any) -> tuple[Any, ...]:
        return tuple(
            [read_row(kind, fields, row) for row in _items(value, limit, least)]
        )

    inner = ", ".join(f"{name} {field.label}" for name, field in columns.items())
    return Field(f"array of [{inner}], {least}..{limit}", pack, unpack)


def unit_maps(limit: int, most: int) -> Field:
    """Return a field for bitmaps of 1 to `limit` objects, together `most` bytes."""
    one = {
        "number": integer(0, MAX_CLOSURE_OBJECTS - 1),
        "bitmap": blob(1, MAX_OBJECT_UNITS // 8),
    }
    table = rows(UnitMap, limit, one, least=1)

    def check(found: Sequence[UnitMap]) -> None:
        if len({number for number, _ in found}) != len(found):
            raise RuleError("the same object twice")
        size = sum([len(bitmap) for _, bitmap in found])
        if size > most:
            raise RuleError(f"bitmaps of {size} bytes, not at most {most}")

    def pack(value: Any) -> object:
        packed = table.pack(value)
        check(value)
        return packed

    def unpack(value: Any) -> tuple[UnitMap, ...]:
        found: tuple[UnitMap, ...] = table.unpack(value)
        check(found)
        return found

    label = f"{table.label}, distinct, bitmaps together 1..{most}"
    return Field(label, pack, unpack)


def read_row(kind: type[Any], fields: tuple[Field, ...], row: Any) -> Any:
    """Return `kind` made of an array's first items, each read by its field."""
    if type(row) is not list or len(row) < len(fields):
        raise RuleError(f"fewer than {len(fields)} fields for {kind.__name__}")
    return kind(*[field.unpack(item) for field, item in zip(fields, row, strict=False)])
