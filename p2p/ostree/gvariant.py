"""GVariant serialisation, strict: only normal form is read, only it is written.

Format: the GVariant specification (Alexander Larsson and Ryan Lortie), as used by
libostree. Integers in the serialised form are little-endian here; OSTree stores
most of its integers byte-swapped inside them, which `p2p.ostree.objects` undoes.

A codec is made once for a type string by `codec` and then reads and writes values:

==============  ==================================================
GVariant type   Python value
==============  ==================================================
b               bool
y n q i u x t   int
d               float
s o g           str
ay              bytes
v               Variant
mX              (value,) or None
aX              tuple of values
a{KX}           tuple of (key, value) pairs
(X…)            tuple
==============  ==================================================
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from p2p.errors import FormatError

# GLib's own recursion limit for containers (g_variant_serialised_check in GLib).
MAX_DEPTH = 128
# No type of OSTree's is longer than 40 characters; a codec is built for each type.
MAX_TYPE_LENGTH = 255
_BASIC_FIXED = {
    "y": ("B", 1),
    "n": ("<h", 2),
    "q": ("<H", 2),
    "i": ("<i", 4),
    "u": ("<I", 4),
    "h": ("<i", 4),
    "x": ("<q", 8),
    "t": ("<Q", 8),
    "d": ("<d", 8),
}
_KEY_TYPES = frozenset("bynqiuhxtdsog")


@dataclass(frozen=True, slots=True)
class Variant:
    """A value together with its GVariant type string, as a `v` carries it."""

    type: str
    value: Any


class Codec(ABC):
    """Reads and writes values of one GVariant type.

    Attributes:
        alignment: 1, 2, 4 or 8 bytes.
        size: serialised size of a fixed-size type, None for a variable one.

    """

    alignment: int = 1
    size: int | None = None

    @abstractmethod
    def read(self, data: bytes, start: int, end: int, depth: int) -> Any:
        """Return the value serialised in data[start:end]; FormatError if not normal."""

    @abstractmethod
    def write(self, value: Any) -> bytes:
        """Return the normal form of the value; TypeError or ValueError if unfit."""

    def decode(self, data: bytes) -> Any:
        """Return the value of the whole buffer; FormatError if it is not normal."""
        return self.read(data, 0, len(data), 0)

    def encode(self, value: Any) -> bytes:
        """Return the serialised form of the value."""
        return self.write(value)


class _Number(Codec):
    __slots__ = ("_struct", "alignment", "size")

    def __init__(self, fmt: str, size: int) -> None:
        self._struct = struct.Struct(fmt)
        self.alignment = self.size = size

    def read(self, data: bytes, start: int, end: int, depth: int) -> Any:  # noqa: ARG002 - nothing is nested in it
        if end - start != self.size:
            raise FormatError("GVariant: number of the wrong size")
        return self._struct.unpack_from(data, start)[0]

    def write(self, value: Any) -> bytes:
        try:
            return self._struct.pack(value)
        except struct.error as error:
            raise ValueError(f"GVariant: {value!r}: {error}") from None


class _Boolean(Codec):
    __slots__ = ()
    size = 1

    def read(self, data: bytes, start: int, end: int, depth: int) -> bool:  # noqa: ARG002 - nothing is nested in it
        if end - start != 1 or data[start] > 1:
            raise FormatError("GVariant: not a boolean")
        return data[start] == 1

    def write(self, value: Any) -> bytes:
        return b"\x01" if value else b"\x00"


class _String(Codec):
    """`s`, `o` and `g`: UTF-8 with one NUL at the end."""

    __slots__ = ("_type",)

    def __init__(self, type_string: str) -> None:
        self._type = type_string

    def read(self, data: bytes, start: int, end: int, depth: int) -> str:  # noqa: ARG002 - nothing is nested in it
        if end <= start or data.find(0, start, end) != end - 1:
            raise FormatError("GVariant: string without its one NUL at the end")
        try:
            text = data[start : end - 1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"GVariant: string is not UTF-8: {error}") from None
        self._check(text, FormatError)
        return text

    def write(self, value: Any) -> bytes:
        if "\0" in value:
            raise ValueError("GVariant: NUL inside a string")
        self._check(value, ValueError)
        return bytes(value.encode("utf-8")) + b"\0"

    def _check(self, text: str, error: type[Exception]) -> None:
        if self._type == "g" and not is_signature(text):
            raise error(f"GVariant: not a signature: {text[:40]!r}")
        if self._type == "o" and not _is_object_path(text):
            raise error(f"GVariant: not an object path: {text[:40]!r}")


class _Bytes(Codec):
    __slots__ = ()

    def read(self, data: bytes, start: int, end: int, depth: int) -> bytes:  # noqa: ARG002 - nothing is nested in it
        return data[start:end]

    def write(self, value: Any) -> bytes:
        return bytes(value)


class _Maybe(Codec):
    __slots__ = ("_item", "alignment")

    def __init__(self, item: Codec) -> None:
        self._item = item
        self.alignment = item.alignment

    def read(self, data: bytes, start: int, end: int, depth: int) -> Any:
        if start == end:
            return None
        if self._item.size is None:
            end -= 1
            if data[end]:
                raise FormatError("GVariant: maybe without its closing NUL")
        return (self._item.read(data, start, end, _deeper(depth)),)

    def write(self, value: Any) -> bytes:
        if value is None:
            return b""
        (item,) = value
        return self._item.write(item) + (b"\0" if self._item.size is None else b"")


class _FixedArray(Codec):
    __slots__ = ("_item", "_item_size", "alignment")

    def __init__(self, item: Codec, item_size: int) -> None:
        self._item = item
        self._item_size = item_size
        self.alignment = item.alignment

    def read(self, data: bytes, start: int, end: int, depth: int) -> Any:
        size, read, deeper = self._item_size, self._item.read, _deeper(depth)
        if (end - start) % size:
            raise FormatError("GVariant: array of fixed items has a remainder")
        return tuple(
            read(data, at, at + size, deeper) for at in range(start, end, size)
        )

    def write(self, value: Any) -> bytes:
        return b"".join(map(self._item.write, value))


class _VariableArray(Codec):
    __slots__ = ("_item", "alignment")

    def __init__(self, item: Codec) -> None:
        self._item = item
        self.alignment = item.alignment

    def read(self, data: bytes, start: int, end: int, depth: int) -> Any:
        if start == end:
            return ()
        deeper = _deeper(depth)
        width = _offset_width(end - start)
        table = start + _offset_at(data, end - width, width)
        if not start <= table < end or (end - table) % width:
            raise FormatError("GVariant: array with an impossible offset table")
        item, mask, values, at = self._item, self.alignment - 1, [], start
        for position in range(table, end, width):
            stop = start + _offset_at(data, position, width)
            begin = at + (-(at - start) & mask)
            if not begin <= stop <= table:
                raise FormatError("GVariant: array offset out of order")
            if begin != at:
                _require_zero(data, at, begin)
            values.append(item.read(data, begin, stop, deeper))
            at = stop
        _require_minimal(width, at - start, len(values))
        return tuple(values)

    def write(self, value: Any) -> bytes:
        body = bytearray()
        offsets = []
        for item in value:
            body += b"\0" * (-len(body) & (self.alignment - 1))
            body += self._item.write(item)
            offsets.append(len(body))
        return bytes(body) + _offset_table(len(body), offsets)


class _Tuple(Codec):
    """`(…)` and `{…}`: members in order, offsets of variable ones reversed behind."""

    __slots__ = ("_framed", "_members", "alignment", "size")

    def __init__(self, members: list[Codec]) -> None:
        self._members = members
        self.alignment = max((m.alignment for m in members), default=1)
        # Only a variable member that is not the last one needs a framing offset.
        self._framed = sum(m.size is None for m in members[:-1])
        self.size = self._fixed_size()

    def _fixed_size(self) -> int | None:
        at = 0
        for member in self._members:
            if member.size is None:
                return None
            at += (-at & (member.alignment - 1)) + member.size
        return at + (-at & (self.alignment - 1)) if self._members else 1

    def read(self, data: bytes, start: int, end: int, depth: int) -> Any:
        deeper = _deeper(depth)
        width = _offset_width(end - start) if self._framed else 0
        table = end - width * self._framed
        if table < start or (self.size is not None and end - start != self.size):
            raise FormatError("GVariant: tuple of the wrong size")
        values, at, position = [], start, end
        last = len(self._members) - 1
        for index, member in enumerate(self._members):
            begin = at + (-(at - start) & (member.alignment - 1))
            if member.size is not None:
                stop = begin + member.size
            elif index == last:
                stop = table
            else:
                position -= width
                stop = start + _offset_at(data, position, width)
            if not begin <= stop <= table:
                raise FormatError("GVariant: tuple member out of bounds")
            if begin != at:
                _require_zero(data, at, begin)
            values.append(member.read(data, begin, stop, deeper))
            at = stop
        if at != table:
            self._check_tail(data, at, table)
        if width:
            _require_minimal(width, at - start, self._framed)
        return tuple(values)

    def _check_tail(self, data: bytes, at: int, table: int) -> None:
        # Only a fixed-size tuple is padded at its end (and `()` is one zero byte).
        if self.size is None:
            raise FormatError("GVariant: bytes between tuple and offset table")
        _require_zero(data, at, table)

    def write(self, value: Any) -> bytes:
        if len(value) != len(self._members):
            raise ValueError("GVariant: tuple with the wrong number of members")
        body = bytearray()
        offsets = []
        last = len(self._members) - 1
        for index, (member, item) in enumerate(zip(self._members, value, strict=True)):
            body += b"\0" * (-len(body) & (member.alignment - 1))
            body += member.write(item)
            if member.size is None and index != last:
                offsets.append(len(body))
        if self.size is not None:
            return bytes(body).ljust(self.size, b"\0")
        offsets.reverse()
        return bytes(body) + _offset_table(len(body), offsets)


class _VariantCodec(Codec):
    __slots__ = ()
    alignment = 8

    def read(self, data: bytes, start: int, end: int, depth: int) -> Variant:
        separator = data.rfind(0, start, end)
        if separator < 0:
            raise FormatError("GVariant: variant without a type")
        type_string = data[separator + 1 : end].decode("ascii", "replace")
        if not is_single_type(type_string):
            raise FormatError(f"GVariant: not a type: {type_string[:40]!r}")
        value = codec(type_string).read(data, start, separator, _deeper(depth))
        return Variant(type_string, value)

    def write(self, value: Any) -> bytes:
        type_string: str = value.type
        body = codec(type_string).write(value.value)
        return body + b"\0" + type_string.encode("ascii")


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise FormatError("GVariant: nested too deeply")
    return depth + 1


def _offset_width(size: int) -> int:
    if size <= 0xFF:
        return 1
    if size <= 0xFFFF:
        return 2
    return 4 if size <= 0xFFFFFFFF else 8


def _offset_at(data: bytes, at: int, width: int) -> int:
    return data[at] if width == 1 else int.from_bytes(data[at : at + width], "little")


def _minimal_width(body_size: int, count: int) -> int:
    """Return how wide the offsets of a container with such a body must be."""
    if body_size + count <= 0xFF:
        return 1
    if body_size + 2 * count <= 0xFFFF:
        return 2
    return 4 if body_size + 4 * count <= 0xFFFFFFFF else 8


def _offset_table(body_size: int, offsets: list[int]) -> bytes:
    width = _minimal_width(body_size, len(offsets))
    return b"".join(offset.to_bytes(width, "little") for offset in offsets)


def _require_minimal(width: int, body_size: int, count: int) -> None:
    if width > 1 and width != _minimal_width(body_size, count):
        raise FormatError("GVariant: framing offsets wider than needed")


def _require_zero(data: bytes, start: int, end: int) -> None:
    if any(data[start:end]):
        raise FormatError("GVariant: padding is not zero")


def _is_object_path(text: str) -> bool:
    if text == "/":
        return True
    return text.startswith("/") and all(
        part and part.isascii() and part.replace("_", "a").isalnum()
        for part in text[1:].split("/")
    )


def is_signature(text: str) -> bool:
    """Tell whether text is a sequence of complete types of D-Bus, which has no `m`."""
    if "m" in text:
        return False
    at = 0
    while at < len(text):
        try:
            at = _skip_type(text, at, 0)
        except FormatError:
            return False
    return True


def is_single_type(text: str) -> bool:
    """Tell whether text is exactly one complete GVariant type of bounded length."""
    try:
        return len(text) <= MAX_TYPE_LENGTH and _skip_type(text, 0, 0) == len(text)
    except FormatError:
        return False


def _skip_type(text: str, at: int, depth: int) -> int:
    """Return where the type that starts at `at` ends."""
    if at >= len(text) or depth > MAX_DEPTH:
        raise FormatError("GVariant: incomplete type")
    kind = text[at]
    if kind in _KEY_TYPES or kind == "v":
        return at + 1
    if kind in "am":
        return _skip_type(text, at + 1, depth + 1)
    if kind == "(":
        at += 1
        while text[at : at + 1] != ")":
            at = _skip_type(text, at, depth + 1)
        return at + 1
    if kind == "{" and text[at + 1 : at + 2] in _KEY_TYPES:
        at = _skip_type(text, at + 2, depth + 1)
        if text[at : at + 1] == "}":
            return at + 1
    raise FormatError("GVariant: unknown type")


@lru_cache(maxsize=512)
def codec(type_string: str) -> Codec:
    """Return the codec of one complete GVariant type; FormatError if it is none."""
    if not is_single_type(type_string):
        raise FormatError(f"GVariant: not a type: {type_string[:40]!r}")
    return _build(type_string, 0)


def _build(text: str, at: int) -> Codec:
    kind = text[at]
    if kind in _BASIC_FIXED:
        return _Number(*_BASIC_FIXED[kind])
    if kind == "b":
        return _Boolean()
    if kind in "sog":
        return _String(kind)
    if kind == "v":
        return _VariantCodec()
    if kind == "m":
        return _Maybe(_build(text, at + 1))
    if kind == "a":
        if text[at + 1] == "y":
            return _Bytes()
        item = _build(text, at + 1)
        if item.size is None:
            return _VariableArray(item)
        return _FixedArray(item, item.size)
    members = []
    at += 1
    while text[at] not in ")}":
        members.append(_build(text, at))
        at = _skip_type(text, at, 0)
    return _Tuple(members)
