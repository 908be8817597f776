"""A `.filez` read the short way equals what the long way makes of it."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import Error, FormatError
from p2p.ostree.filez import FilezReader, from_content, to_canonical
from p2p.ostree.gvariant import codec
from p2p.ostree.objects import (
    FRAME_BYTES,
    FileHeader,
    split_filez_header,
    swap64,
)

_CODEC = codec("(tuuuusa(ayay))")
_U32 = st.integers(0, 2**32 - 1)
_XATTRS = st.dictionaries(
    st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name),
    st.binary(max_size=60),
    max_size=4,
)


@given(_U32, _U32, st.integers(0, 2**64 - 1), _XATTRS)
def test_a_header_gives_its_values_and_its_canonical_form(
    uid: int, gid: int, size: int, xattrs: dict[bytes, bytes]
) -> None:
    header = FileHeader(uid, gid, 0o100755, xattrs=tuple(sorted(xattrs.items())))
    data = header.serialize_filez(size)[FRAME_BYTES:]
    assert split_filez_header(data) == (header, size, header.serialize())


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_or_mean_what_the_codec_reads(data: bytes) -> None:
    try:
        header, size, canonical = split_filez_header(data)
    except FormatError:
        return
    values = _CODEC.decode(data)
    assert size == swap64(values[0])
    assert header.uid == int.from_bytes(values[1].to_bytes(4, "little"), "big")
    assert canonical == header.serialize()


@given(st.integers(0, 255), st.integers(0, 60))
def test_a_changed_byte_is_refused_or_read_as_the_codec_reads_it(
    value: int, position: int
) -> None:
    data = bytearray(
        FileHeader(0, 0, 0o100644, xattrs=((b"user.a", b"1"),)).serialize_filez(5)[8:]
    )
    data[position % len(data)] = value
    try:
        header, _, canonical = split_filez_header(bytes(data))
    except FormatError:
        return
    assert _CODEC.decode(bytes(data))[5] == header.symlink_target
    assert canonical == header.serialize()


def test_a_symbolic_link_that_claims_content_is_refused() -> None:
    link = FileHeader(0, 0, 0o120777, "target")
    data = link.serialize_filez(1)[FRAME_BYTES:]
    with pytest.raises(FormatError, match="symbolic link with content"):
        split_filez_header(data)


def _long_way(data: bytes, limit: int) -> bytes:
    reader = FilezReader(limit=limit)
    canonical = b"".join(reader.feed(data))
    reader.finish()
    return canonical


def _cut(data: bytes, at: int) -> bytes:
    return data[:at]


def _flip(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1 + at % 255]) + data[at + 1 :]


def _append(data: bytes, count: int) -> bytes:
    return data + bytes(count)


@given(
    st.binary(max_size=300),
    st.sampled_from([0, 1, 26, 100, 1 << 20]),
    st.sampled_from([_cut, _flip, _append]),
    st.integers(0, 400),
    st.booleans(),
)
def test_a_whole_file_is_taken_or_refused_alike(
    content: bytes,
    limit: int,
    damage: Callable[[bytes, int], bytes],
    where: int,
    link: bool,
) -> None:
    header = FileHeader(0, 0, 0o120777, "x") if link else FileHeader(0, 0, 0o100644)
    pieces = from_content(header, 0 if link else len(content), [content], level=6)
    whole = b"".join(pieces)
    for data in (whole, damage(whole, where)):
        try:
            expected = _long_way(data, limit)
        except Error as error:
            with pytest.raises(type(error)):
                to_canonical(data, limit=limit)
        else:
            assert to_canonical(data, limit=limit) == expected
