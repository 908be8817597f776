"""Our GVariant against GLib's: the same bytes, the same notion of normal form."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from p2p.errors import FormatError
from p2p.ostree.gvariant import Variant, codec
from tests.oracle.glib import GLibVariants
from tests.property.variants import OSTREE_TYPES, split, types, values
from tests.require import require

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
KINDS = st.one_of(st.sampled_from(OSTREE_TYPES), types())


@pytest.fixture(scope="module")
def glib() -> Iterator[GLibVariants]:
    require("gi")
    with GLibVariants() as running:
        yield running


def plain(kind: str, value: Any) -> Any:
    """A value as PyGObject's `unpack` and then JSON have it."""
    if kind == "v":
        return plain(value.type, value.value)
    if kind[0] == "m":
        return None if value is None else plain(kind[1:], value[0])
    if kind[:2] == "a{":
        key, item = split(kind[2:-1])
        return {plain(key, k): plain(item, v) for k, v in value}
    if kind[0] == "a":
        return [plain(kind[1:], item) for item in value]
    if kind[0] == "(":
        members = zip(split(kind[1:-1]), value, strict=True)
        return [plain(member, item) for member, item in members]
    return value


@SHARED
@given(kind=KINDS, data=st.data())
def test_what_we_write_is_normal_and_means_the_same(
    glib: GLibVariants, kind: str, data: st.DataObject
) -> None:
    value = data.draw(values(kind))
    written = codec(kind).encode(value)
    normal, theirs, again = glib.look(kind, written)
    assert normal
    assert again == written
    assert theirs == json.loads(json.dumps(plain(kind, value)))


def can_be_empty(kind: str) -> bool:
    """Whether GLib takes no bytes at all for a value of the type."""
    if kind[0] == "(":
        return kind != "()" and all(map(can_be_empty, split(kind[1:-1])))
    return kind[0] in "am"


def has_two_forms(kind: str, data: bytes) -> bool:
    """Whether GLib takes two encodings of one value for normal.

    A tuple of nothing but empty arrays is written with its framing offsets, which
    are zero; GLib also takes it without them, and we do not.
    """
    if kind[0] in "am":
        return has_two_forms(kind[1:], data)
    if kind[0] not in "({":
        return kind == "v" and b"(" in data
    members = split(kind[1:-1])
    return (len(members) > 1 and can_be_empty(kind)) or any(
        has_two_forms(member, data) for member in members
    )


def agree(glib: GLibVariants, kind: str, data: bytes) -> None:
    """Both take the bytes for normal, or neither does."""
    try:
        codec(kind).decode(data)
    except FormatError:
        ours = False
    else:
        ours = True
    theirs = glib.look(kind, data)[0]
    assert theirs == ours or (theirs and has_two_forms(kind, data))


@SHARED
@given(kind=KINDS, data=st.binary(max_size=60))
def test_any_bytes_are_normal_for_both_or_for_neither(
    glib: GLibVariants, kind: str, data: bytes
) -> None:
    agree(glib, kind, data)


@SHARED
@given(kind=KINDS, data=st.data())
def test_a_changed_byte_is_normal_for_both_or_for_neither(
    glib: GLibVariants, kind: str, data: st.DataObject
) -> None:
    written = bytearray(codec(kind).encode(data.draw(values(kind))))
    assume(written)
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] = data.draw(st.sampled_from([0, 1, 2, 8, 128, 255]))
    agree(glib, kind, bytes(written))
    agree(glib, kind, bytes(written[: data.draw(st.integers(0, len(written)))]))


@pytest.mark.parametrize(
    "size", [0, 1, 125, 126, 127, 250, 251, 252, 253, 254, 255, 256]
)
@pytest.mark.parametrize("kind", ["as", "(ss)", "(ass)", "aas", "a{sv}", "(sus)"])
def test_offsets_are_as_wide_as_those_of_glib(
    glib: GLibVariants, kind: str, size: int
) -> None:
    text = "x" * size
    value = {
        "as": (text,),
        "(ss)": (text, ""),
        "(ass)": ((text,), text),
        "aas": ((text,), ()),
        "a{sv}": ((text, Variant("s", text)),),
        "(sus)": (text, 7, text),
    }[kind]
    written = codec(kind).encode(value)
    assert glib.look(kind, written) == (
        True,
        json.loads(json.dumps(plain(kind, value))),
        written,
    )


@pytest.mark.parametrize("size", [65_525, 65_530, 65_533, 65_534, 65_535, 65_536])
def test_large_containers_have_wide_offsets(glib: GLibVariants, size: int) -> None:
    for kind in ("a(sy)", "(say)"):
        value = (("x" * size, 1),) if kind == "a(sy)" else ("x" * size, b"")
        written = codec(kind).encode(value)
        normal, _, again = glib.look(kind, written)
        assert normal
        assert again == written


@pytest.mark.parametrize("count", [0, 1, 62, 63, 64, 127, 128, 255, 256, 300])
def test_many_items_have_offsets_like_those_of_glib(
    glib: GLibVariants, count: int
) -> None:
    for value in (("",) * count, ("abc",) * count):
        written = codec("as").encode(value)
        assert glib.look("as", written) == (True, list(value), written)


@pytest.mark.parametrize(
    "kind, data",
    [
        # Offsets wider than they need be.
        ("as", b"a\0" + struct.pack("<H", 2)),
        ("(ss)", b"a\0b\0" + struct.pack("<H", 2)),
        # Bytes that nothing claims.
        ("(s)", b"a\0b"),
        ("(us)", b"\1\0\0\0a\0\0"),
        # Padding that is not zero.
        ("(yu)", b"\1\0\0\1\2\0\0\0"),
        ("(uy)", b"\1\0\0\0\2\0\0\1"),
        # Variants without a type, with two, or with an incomplete one.
        ("v", b"\0"),
        ("v", b"a\0\0ss"),
        ("v", b"\0a"),
        ("v", b"\0{sv}"),
        # Text that is none.
        ("s", b"\xff\0"),
        ("s", b"\xed\xa0\x80\0"),
        ("s", b"a\0b\0"),
        ("s", b"a"),
        ("s", b""),
        ("o", b"no\0"),
        ("o", b"/\0"),
        ("o", b"//\0"),
        ("o", b"/a/\0"),
        ("o", b"/\xc3\xa9\0"),
        ("g", b"a\0"),
        ("g", b"(ss\0"),
        ("b", b"\2"),
        ("()", b"\0"),
        ("()", b"\1"),
        ("()", b""),
        ("a()", b"\0\0"),
        ("m()", b"\0"),
        ("ms", b"a\0\1"),
        ("mi", b"\0\0"),
    ],
)
def test_odd_bytes_are_judged_as_by_glib(
    glib: GLibVariants, kind: str, data: bytes
) -> None:
    agree(glib, kind, data)
