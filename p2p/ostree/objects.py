"""OSTree's objects as values: parse, serialise and check them; pure.

Formats: libostree `ostree-core.h` (OSTREE_*_GVARIANT_FORMAT). OSTree stores its
integers big-endian inside little-endian GVariants, so they are byte-swapped here.
Every `parse` raises `FormatError` (or its subclass `LimitError`) and nothing else.
"""

from __future__ import annotations

import binascii
import hashlib
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple, NewType

from p2p.errors import FormatError, IntegrityError, LimitError
from p2p.ostree.gvariant import Variant, codec

Checksum = NewType("Checksum", str)
"""SHA-256 as 64 lower-case hexadecimal digits: an object's name."""

RawChecksum = NewType("RawChecksum", bytes)
"""SHA-256 as 32 bytes."""

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Extended attributes sorted by name: (name without its NUL, value)."""

Metadata = tuple[tuple[str, Variant], ...]
"""An `a{sv}` dictionary in the order it was written."""

# OSTREE_MAX_METADATA_SIZE of libostree 2022.7 (128 MiB in later releases).
MAX_METADATA_BYTES = 10 << 20
# The kernel's own bounds: XATTR_LIST_MAX for all names, PATH_MAX for a target.
MAX_HEADER_BYTES = 1 << 20
MAX_SYMLINK_BYTES = 4096
NAME_MAX = 255

_SIZE_BYTES = 8
_FILEZ_HEADER_MIN = _SIZE_BYTES + 16 + 1 + 1  # numbers, an empty string, its offset
_ONE_BYTE_OFFSETS = 255  # longest variant whose offsets are of one byte

_COMMIT = codec("(a{sv}aya(say)sstayay)")
_DIRTREE = codec("(a(say)a(sayay))")
_DIRMETA = codec("(uuua(ayay))")
_FILE_HEADER = codec("(uuuusa(ayay))")
_FILEZ_HEADER = codec("(tuuuusa(ayay))")
_METADATA = codec("a{sv}")


class ObjectType(IntEnum):
    """Kinds of objects, numbered as OstreeObjectType."""

    FILE = 1
    DIRTREE = 2
    DIRMETA = 3
    COMMIT = 4
    TOMBSTONE_COMMIT = 5
    COMMITMETA = 6
    PAYLOAD_LINK = 7
    FILE_XATTRS = 8
    FILE_XATTRS_LINK = 9

    @property
    def extension(self) -> str:
        """File name extension; content in archive repositories is `filez`."""
        return _EXTENSIONS[self]


_EXTENSIONS = {kind: kind.name.lower().replace("_", "-") for kind in ObjectType}
_TYPES = {extension: kind for kind, extension in _EXTENSIONS.items()}
_TYPES["filez"] = ObjectType.FILE
CONTENT_ADDRESSED_METADATA = frozenset(
    {ObjectType.DIRTREE, ObjectType.DIRMETA, ObjectType.COMMIT}
)


class ObjectName(NamedTuple):
    """Checksum and kind: what an object is asked for by."""

    checksum: Checksum
    type: ObjectType

    def __str__(self) -> str:
        return f"{self.checksum}.{self.type.extension}"

    def path(self, *, archive: bool = False) -> str:
        """Return the path below `objects/` in a repository."""
        extension = self.type.extension
        if archive and self.type is ObjectType.FILE:
            extension = "filez"
        return f"{self.checksum[:2]}/{self.checksum[2:]}.{extension}"


def parse_checksum(text: str) -> Checksum:
    """Return text as a checksum; FormatError unless 64 lower-case hex digits."""
    if len(text) != 64 or text.strip("0123456789abcdef"):
        raise FormatError(f"not a checksum: {text[:80]!r}")
    return Checksum(text)


def parse_object_path(path: str) -> ObjectName:
    """Return the name for `xx/yyyy….ext`; FormatError if it is not an object's."""
    stem, _, extension = path.partition(".")
    kind = _TYPES.get(extension)
    if kind is None or len(stem) != 65 or stem[2] != "/":
        raise FormatError(f"not an object's path: {path[:100]!r}")
    return ObjectName(parse_checksum(stem[:2] + stem[3:]), kind)


def raw(checksum: Checksum) -> RawChecksum:
    """Return the 32 bytes of a checksum."""
    return RawChecksum(binascii.unhexlify(checksum))


def from_raw(data: bytes) -> Checksum:
    """Return the hex form of 32 bytes; FormatError for another length."""
    if len(data) != 32:
        raise FormatError(f"checksum of {len(data)} bytes instead of 32")
    return Checksum(data.hex())


def checksum_of(data: bytes) -> Checksum:
    """Return the name of a metadata object with these bytes."""
    return Checksum(hashlib.sha256(data).hexdigest())


def check_metadata(name: ObjectName, data: bytes) -> None:
    """Raise IntegrityError unless the bytes have the checksum that names them."""
    if len(data) > MAX_METADATA_BYTES:
        raise LimitError(f"{name}: {len(data)} bytes of metadata")
    got = checksum_of(data)
    if got != name.checksum:
        raise IntegrityError(f"object {name}", expected=name.checksum, got=got)


def check_file_name(name: str) -> str:
    """Return a directory entry's name; FormatError if no directory could hold it."""
    if not name or name in (".", "..") or "/" in name:
        raise FormatError(f"directory entry with an impossible name: {name[:80]!r}")
    if len(name.encode()) > NAME_MAX:
        raise FormatError(f"directory entry with too long a name: {name[:80]!r}…")
    return name


# -- commits -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit object; `timestamp` is seconds since 1970 in UTC."""

    root_dirtree: Checksum
    root_dirmeta: Checksum
    timestamp: int
    subject: str = ""
    body: str = ""
    parent: Checksum | None = None
    metadata: Metadata = ()
    related: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Commit:
        """Return the commit serialised in data."""
        if len(data) > MAX_METADATA_BYTES:
            raise LimitError(f"commit of {len(data)} bytes")
        metadata, parent, related, subject, body, time, tree, meta = _COMMIT.decode(
            data
        )
        return cls(
            metadata=metadata,
            parent=from_raw(parent) if parent else None,
            related=related,
            subject=subject,
            body=body,
            timestamp=swap64(time),
            root_dirtree=from_raw(tree),
            root_dirmeta=from_raw(meta),
        )

    def serialize(self) -> bytes:
        """Return the bytes of the `.commit` object."""
        return _COMMIT.encode(
            (
                self.metadata,
                raw(self.parent) if self.parent else b"",
                self.related,
                self.subject,
                self.body,
                swap64(self.timestamp),
                raw(self.root_dirtree),
                raw(self.root_dirmeta),
            )
        )

    def get(self, key: str, type_string: str) -> Any:
        """Return a metadata value if it is there with that type, else None."""
        return lookup(self.metadata, key, type_string)


def lookup(metadata: Metadata, key: str, type_string: str) -> Any:
    """Return the first value under key if it has that GVariant type, else None."""
    for name, variant in metadata:
        if name == key:
            return variant.value if variant.type == type_string else None
    return None


def parse_metadata(data: bytes) -> Metadata:
    """Return an `a{sv}` such as a `.commitmeta`; the caller bounds its size."""
    if len(data) > MAX_METADATA_BYTES:
        raise LimitError(f"metadata of {len(data)} bytes")
    metadata: Metadata = _METADATA.decode(data)
    return metadata


def serialize_metadata(metadata: Metadata) -> bytes:
    """Return the bytes of an `a{sv}`."""
    return _METADATA.encode(metadata)


# -- directories ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DirTree:
    """A directory's entries, each list sorted by the bytes of the name."""

    files: tuple[tuple[str, Checksum], ...] = ()
    dirs: tuple[tuple[str, Checksum, Checksum], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> DirTree:
        """Return the dirtree serialised in data; hostile names are refused."""
        if len(data) > MAX_METADATA_BYTES:
            raise LimitError(f"dirtree of {len(data)} bytes")
        files, dirs = _DIRTREE.decode(data)
        _check_order([name for name, _ in files])
        _check_order([name for name, _, _ in dirs])
        if files and dirs and {n for n, _ in files} & {n for n, _, _ in dirs}:
            raise FormatError("dirtree names a file and a directory alike")
        return cls(
            tuple((name, from_raw(data)) for name, data in files),
            tuple((name, from_raw(tree), from_raw(meta)) for name, tree, meta in dirs),
        )

    def serialize(self) -> bytes:
        """Return the bytes of the `.dirtree` object."""
        return _DIRTREE.encode(
            (
                tuple((name, raw(csum)) for name, csum in self.files),
                tuple((name, raw(tree), raw(meta)) for name, tree, meta in self.dirs),
            )
        )


def _check_order(names: list[str]) -> None:
    previous = b""
    for name in names:
        check_file_name(name)
        encoded = name.encode()
        if encoded <= previous:
            raise FormatError(f"dirtree entries are not in order at {name[:80]!r}")
        previous = encoded


@dataclass(frozen=True, slots=True)
class DirMeta:
    """Owner, mode (with S_IFDIR) and xattrs of a directory."""

    uid: int
    gid: int
    mode: int
    xattrs: Xattrs = ()

    @classmethod
    def parse(cls, data: bytes) -> DirMeta:
        """Return the dirmeta serialised in data."""
        if len(data) > MAX_HEADER_BYTES:
            raise LimitError(f"dirmeta of {len(data)} bytes")
        uid, gid, mode, xattrs = _DIRMETA.decode(data)
        mode = _swap32(mode)
        if not stat.S_ISDIR(mode) or mode & ~(stat.S_IFMT(mode) | 0o7777):
            raise FormatError(f"dirmeta with mode {mode:o}")
        return cls(_swap32(uid), _swap32(gid), mode, _parse_xattrs(xattrs))

    def serialize(self) -> bytes:
        """Return the bytes of the `.dirmeta` object."""
        return serialize_inode(self.uid, self.gid, self.mode, self.xattrs)


@lru_cache(maxsize=4096)
def serialize_inode(uid: int, gid: int, mode: int, xattrs: Xattrs) -> bytes:
    """Return `(uuua(ayay))`: a dirmeta, or the xattr `user.ostreemeta` of a file."""
    return _DIRMETA.encode(
        (_swap32(uid), _swap32(gid), _swap32(mode), _serialize_xattrs(xattrs))
    )


@lru_cache(maxsize=4096)
def parse_inode(data: bytes) -> tuple[int, int, int, Xattrs]:
    """Return uid, gid, mode and xattrs of a bare-user file's `user.ostreemeta`."""
    if len(data) > MAX_HEADER_BYTES:
        raise LimitError(f"user.ostreemeta of {len(data)} bytes")
    uid, gid, mode, xattrs = _DIRMETA.decode(data)
    return _swap32(uid), _swap32(gid), _swap32(mode), _parse_xattrs(xattrs)


# -- files ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What the checksum of a file covers besides its content.

    `mode` includes S_IFREG or S_IFLNK; OSTree knows no other kinds.
    """

    uid: int
    gid: int
    mode: int
    symlink_target: str = ""
    xattrs: Xattrs = ()

    @property
    def is_symlink(self) -> bool:
        """Tell whether this is a symbolic link (which has no content)."""
        return stat.S_ISLNK(self.mode)

    @classmethod
    def parse(cls, data: bytes) -> FileHeader:
        """Return the header from its variant `(uuuusa(ayay))`."""
        return _parse_header(bytes(data))

    def serialize(self) -> bytes:
        """Return the variant `(uuuusa(ayay))`, without the frame before it."""
        return _FILE_HEADER.encode(self._members())

    def frame(self) -> bytes:
        """Return the framed header: the canonical form's bytes before the content."""
        return _frame(self)

    def serialize_filez(self, size: int) -> bytes:
        """Return the framed `(tuuuusa(ayay))` that begins a `.filez` file."""
        return frame_header(_FILEZ_HEADER.encode((swap64(size), *self._members())))

    def _members(self) -> tuple[Any, ...]:
        return (
            _swap32(self.uid),
            _swap32(self.gid),
            _swap32(self.mode),
            0,
            self.symlink_target,
            _serialize_xattrs(self.xattrs),
        )


@lru_cache(maxsize=4096)
def _frame(header: FileHeader) -> bytes:
    # Thousands of files have the same.
    return frame_header(header.serialize())


FRAME_BYTES = 8
"""Length of the frame before a header: 32-bit big-endian length, four zero bytes."""


def frame_header(header: bytes) -> bytes:
    """Return the header with its frame before it."""
    return struct.pack(">II", len(header), 0) + header


def parse_frame(data: bytes) -> int:
    """Return the length of the header that follows an 8-byte frame."""
    size, pad = struct.unpack_from(">II", data)
    if pad:
        raise FormatError("file header: padding is not zero")
    if size > MAX_HEADER_BYTES:
        raise LimitError(f"file header of {size} bytes")
    return int(size)


def split_canonical(data: bytes) -> tuple[FileHeader, int]:
    """Return the header of a file in canonical form and where its content begins."""
    if len(data) < FRAME_BYTES:
        raise FormatError("file object: shorter than its frame")
    end = FRAME_BYTES + parse_frame(data)
    if len(data) < end:
        raise FormatError("file object: shorter than its header")
    header = _parse_header(data[FRAME_BYTES:end])
    if header.is_symlink and len(data) != end:
        raise FormatError("file object: symbolic link with content")
    return header, end


def parse_filez_header(data: bytes) -> tuple[FileHeader, int]:
    """Return the header and the claimed size of the content from a `.filez` header."""
    header, size, _ = split_filez_header(data)
    return header, size


def split_filez_header(data: bytes) -> tuple[FileHeader, int, bytes]:
    """Return header, claimed size, and the header's variant in canonical form."""
    if _FILEZ_HEADER_MIN <= len(data) <= _ONE_BYTE_OFFSETS and data[-1] >= _SIZE_BYTES:
        # The size comes first, so all that follows, and the one offset at the end, is
        # the canonical variant moved by 8 bytes: thousands of files share that.
        canonical = data[_SIZE_BYTES:-1] + bytes((data[-1] - _SIZE_BYTES,))
        header = _parse_header(canonical)
        size = int.from_bytes(data[:_SIZE_BYTES], "big")
    else:
        little, uid, gid, mode, rdev, target, xattrs = _FILEZ_HEADER.decode(data)
        header = _check_header(uid, gid, mode, rdev, target, xattrs)
        size = swap64(little)
        canonical = header.serialize()
    if header.is_symlink and size:
        raise FormatError("file object: symbolic link with content")
    return header, size, canonical


@lru_cache(maxsize=4096)
def _parse_header(data: bytes) -> FileHeader:
    return _check_header(*_FILE_HEADER.decode(data))


def _check_header(
    uid: int, gid: int, mode: int, rdev: int, target: str, xattrs: Any
) -> FileHeader:
    mode = _swap32(mode)
    if mode & ~0o177777 or rdev:
        raise FormatError(f"file header with mode {mode:o}, device {rdev}")
    if stat.S_ISLNK(mode):
        if not target or len(target.encode()) >= MAX_SYMLINK_BYTES:
            raise FormatError("symbolic link without a usable target")
    elif not stat.S_ISREG(mode) or target:
        raise FormatError(f"file header with mode {mode:o} and target {target[:80]!r}")
    return FileHeader(_swap32(uid), _swap32(gid), mode, target, _parse_xattrs(xattrs))


def _parse_xattrs(pairs: Iterable[tuple[bytes, bytes]]) -> Xattrs:
    xattrs = []
    previous = b""
    for name, value in pairs:
        if len(name) < 2 or name.find(0) != len(name) - 1:
            raise FormatError("xattr with an impossible name")
        if name <= previous:
            raise FormatError("xattrs are not in order")
        previous = name
        xattrs.append((name[:-1], value))
    return tuple(xattrs)


def _serialize_xattrs(xattrs: Xattrs) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name + b"\0", value) for name, value in sorted(xattrs))


def _swap32(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "little"), "big")


def swap64(value: int) -> int:
    """Return a 64-bit number with its bytes reversed, as OSTree stores it."""
    return int.from_bytes(value.to_bytes(8, "little"), "big")
