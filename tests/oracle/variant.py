"""A reader of serialised GVariants by type string, small and slow on purpose.

Numbers come out as stored for the machine's order, little-endian; OSTree puts
most of them in big-endian, which `be32` and `be64` undo.
"""

import struct
from typing import Any

_FIXED = {
    "y": (1, "<B"),
    "b": (1, "<?"),
    "n": (2, "<h"),
    "q": (2, "<H"),
    "i": (4, "<i"),
    "u": (4, "<I"),
    "x": (8, "<q"),
    "t": (8, "<Q"),
    "d": (8, "<d"),
}


class VariantError(Exception):
    """The bytes are no value of the type."""


def be32(number: int) -> int:
    """The number that OSTree stored in big-endian."""
    return int.from_bytes(number.to_bytes(4, "little"), "big")


def be64(number: int) -> int:
    """The number that OSTree stored in big-endian."""
    return int.from_bytes(number.to_bytes(8, "little"), "big")


def read(kind: str, data: bytes) -> Any:
    """The value of the bytes: tuples, lists, str, int; `ay` as bytes.

    A dictionary is a list of its entries; a variant the pair of type and value.
    """
    try:
        value = _read(kind, data)
    except (IndexError, ValueError, struct.error) as error:
        raise VariantError(f"{kind}: {error}") from error
    return value


def _read(kind: str, data: bytes) -> Any:
    if kind in _FIXED:
        size, code = _FIXED[kind]
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes for {kind}")
        return struct.unpack(code, data)[0]
    if kind in ("s", "o", "g"):
        if data[-1] != 0 or 0 in data[:-1]:
            raise ValueError("a string without its one NUL")
        return data[:-1].decode()
    if kind == "v":
        body, _, inner = data.rpartition(b"\0")
        return inner.decode(), _read(inner.decode(), body)
    if kind == "ay":
        return data
    if kind[0] == "a":
        return _read_array(kind[1:], data)
    return _read_tuple(_members(kind[1:-1]), data)


def _read_array(kind: str, data: bytes) -> list[Any]:
    size = fixed_size(kind)
    if size is not None:
        if len(data) % size:
            raise ValueError(f"{len(data)} bytes in an array of {size}")
        starts = range(0, len(data), size)
        return [_read(kind, data[start : start + size]) for start in starts]
    if not data:
        return []
    width = _offset_width(len(data))
    table = int.from_bytes(data[-width:], "little")
    if table > len(data) or (len(data) - table) % width:
        raise ValueError("an array with a broken offset table")
    values = []
    start = 0
    for at in range(table, len(data), width):
        end = int.from_bytes(data[at : at + width], "little")
        start += -start % alignment(kind)
        if not start <= end <= table:
            raise ValueError("array offsets out of order")
        values.append(_read(kind, data[start:end]))
        start = end
    return values


def _read_tuple(kinds: list[str], data: bytes) -> tuple[Any, ...]:
    width = _offset_width(len(data))
    values = []
    start = 0
    limit = len(data)  # offsets are taken from the end of the tuple
    for index, kind in enumerate(kinds):
        start += -start % alignment(kind)
        size = fixed_size(kind)
        if size is not None:
            end = start + size
        elif index == len(kinds) - 1:
            end = limit
        else:
            limit -= width
            end = int.from_bytes(data[limit : limit + width], "little")
        if not start <= end <= limit:
            raise ValueError("tuple offsets out of order")
        values.append(_read(kind, data[start:end]))
        start = end
    return tuple(values)


def _offset_width(size: int) -> int:
    return next(width for width in (1, 2, 4, 8) if size < 1 << 8 * width)


def _members(kinds: str) -> list[str]:
    """The type strings that stand one after the other in `kinds`."""
    members = []
    start = 0
    while start < len(kinds):
        end = start
        while kinds[end] == "a":
            end += 1
        depth = 0
        while True:
            depth += (kinds[end] in "({") - (kinds[end] in ")}")
            end += 1
            if depth == 0:
                break
        members.append(kinds[start:end])
        start = end
    return members


def alignment(kind: str) -> int:
    """The alignment of a type, in bytes."""
    if kind[0] == "a":
        return alignment(kind[1:])
    if kind[0] in "({":
        return max(map(alignment, _members(kind[1:-1])), default=1)
    return 8 if kind == "v" else _FIXED[kind][0] if kind in _FIXED else 1


def fixed_size(kind: str) -> int | None:
    """The size that every value of the type has, or None."""
    if kind in _FIXED:
        return _FIXED[kind][0]
    if kind[0] not in "({":
        return None
    size = 0
    for member in _members(kind[1:-1]):
        inner = fixed_size(member)
        if inner is None:
            return None
        size += -size % alignment(member) + inner
    return size + -size % alignment(kind)


def write_xattrs(attributes: list[tuple[bytes, bytes]]) -> bytes:
    """Serialise `a(ayay)`: names without their NUL, in the order given."""
    elements = []
    for name, value in attributes:
        body = name + b"\0" + value
        elements.append(_close(body, [len(name) + 1]))
    ends = [sum(map(len, elements[: i + 1])) for i in range(len(elements))]
    return _close(b"".join(elements), ends)


def write_file_header(
    uid: int, gid: int, mode: int, target: bytes, xattrs: bytes
) -> bytes:
    """Serialise `(uuuusa(ayay))` with its numbers in big-endian, rdev 0."""
    body = struct.pack(">4I", uid, gid, mode, 0) + target + b"\0"
    return _close(body + xattrs, [len(body)])


def _close(body: bytes, ends: list[int]) -> bytes:
    """Append the framing offsets, as wide as the whole then needs."""
    for width in (1, 2, 4, 8):
        if len(body) + width * len(ends) < 1 << 8 * width:
            break
    return body + b"".join(end.to_bytes(width, "little") for end in ends)
