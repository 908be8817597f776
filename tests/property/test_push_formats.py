"""Uploads and their metadata: any bytes give a value or our error."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import FormatError
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import parse_metadata, serialize_metadata
from p2p.web.server.exchange import RefusedError
from p2p.web.treehub.detached import merge_detached
from p2p.web.treehub.multipart import MultipartField, boundary_of


async def _pieces(data: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def _read(data: bytes, size: int, boundary: bytes) -> bytes:
    async with aclosing(_pieces(data, size)) as body:
        field = MultipartField(body, boundary, "file")
        return b"".join([piece async for piece in field])


def _form(content: bytes, before: bytes) -> bytes:
    return (
        b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + before + b"\r\n"
        b'--xx\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + content
    ) + b"\r\n--xx--\r\n"


_WITHOUT_BOUNDARY = st.binary(max_size=60).filter(lambda data: b"--xx" not in data)


@given(_WITHOUT_BOUNDARY, _WITHOUT_BOUNDARY, st.integers(1, 200))
def test_a_field_comes_out_as_it_went_in(
    content: bytes, before: bytes, size: int
) -> None:
    assert trio.run(_read, _form(content, before), size, b"xx") == content


_SCRAPS = st.sampled_from(
    [b"--xx", b"\r\n", b"--xx--", b'Content-Disposition: x; name="file"', b"\r\n\r\n"]
)


@given(
    st.lists(st.one_of(_SCRAPS, st.binary(max_size=9)), max_size=9).map(b"".join),
    st.integers(1, 50),
)
def test_any_body_is_read_or_refused(data: bytes, size: int) -> None:
    try:
        whole = trio.run(_read, data, size, b"xx")
    except RefusedError:
        return
    assert whole in data


@given(st.text(max_size=60))
def test_any_content_type_is_understood_or_refused(content_type: str) -> None:
    try:
        boundary = boundary_of("multipart/form-data; boundary=" + content_type)
    except RefusedError:
        return
    assert boundary is None or 0 < len(boundary) <= 70


_SIGNATURES = st.lists(st.binary(max_size=8), max_size=4).map(tuple)
_METADATA = st.dictionaries(
    st.sampled_from(["ostree.sign.ed25519", "ostree.gpgsigs", "note"]),
    _SIGNATURES.map(lambda found: Variant("aay", found)),
    max_size=3,
).map(lambda entries: serialize_metadata(tuple(entries.items())))


@given(_METADATA, _METADATA)
def test_merging_loses_nothing_and_is_done_after_one_time(
    mine: bytes, theirs: bytes
) -> None:
    merged = merge_detached(mine, theirs)
    assert merge_detached(merged, theirs) == merged
    assert merge_detached(merged, mine) == merged
    found = dict(parse_metadata(merged))
    for key, variant in parse_metadata(mine):
        assert set(variant.value) <= set(found[key].value)
    for key, variant in parse_metadata(theirs):
        if key != "note":
            assert set(variant.value) <= set(found[key].value)


@given(st.binary(max_size=80), _METADATA)
def test_any_bytes_are_merged_or_refused(data: bytes, other: bytes) -> None:
    for mine, theirs in ((data, other), (other, data)):
        try:
            merged = merge_detached(mine, theirs)
        except FormatError:
            continue
        parse_metadata(merged)
