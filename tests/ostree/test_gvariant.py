"""GVariant: known bytes, and every way in which bytes can be wrong."""

from typing import Any

import pytest

from p2p.errors import FormatError
from p2p.ostree.gvariant import (
    MAX_DEPTH,
    MAX_TYPE_LENGTH,
    Variant,
    codec,
    is_signature,
    is_single_type,
)

# The examples of the GVariant specification, little-endian, and libostree's types.
KNOWN: list[tuple[str, Any, bytes]] = [
    ("s", "hello world", b"hello world\0"),
    ("ms", ("hello world",), b"hello world\0\0"),
    ("ms", None, b""),
    ("mi", (7,), b"\7\0\0\0"),
    ("mmi", (None,), b"\0"),
    ("ab", (True, False, False, True, True), b"\1\0\0\1\1"),
    ("(si)", ("foo", -1), b"foo\0\xff\xff\xff\xff\4"),
    (
        "a(si)",
        (("hi", -2), ("bye", -1)),
        b"hi\0\0\xfe\xff\xff\xff\3\0\0\0bye\0\xff\xff\xff\xff\4\x09\x15",
    ),
    ("as", ("i", "can", "has", "strings?"), b"i\0can\0has\0strings?\0\2\6\x0a\x13"),
    ("(yy)", (0x70, 0x80), b"\x70\x80"),
    ("(iy)", (96, 0x70), b"\x60\0\0\0\x70\0\0\0"),
    ("a(iy)", ((96, 0x70), (648, 0xF7)), b"\x60\0\0\0\x70\0\0\0\x88\2\0\0\xf7\0\0\0"),
    ("ai", (4, 0x102), b"\4\0\0\0\2\1\0\0"),
    ("{si}", ("a key", 514), b"a key\0\0\0\2\2\0\0\6"),
    ("v", Variant("s", "x"), b"x\0\0s"),
    ("v", Variant("u", 1), b"\1\0\0\0\0u"),
    ("a{sv}", (), b""),
    ("(sv)", ("k", Variant("y", 1)), b"k\0\0\0\0\0\0\0\1\0y\2"),
    ("(sus)", ("a", 1, "b"), b"a\0\0\0\1\0\0\0b\0\2"),
    ("()", (), b"\0"),
    ("a()", ((), ()), b"\0\0"),
    ("ay", b"\1\2", b"\1\2"),
    ("b", True, b"\1"),
    ("n", -2, b"\xfe\xff"),
    ("q", 0xFFFE, b"\xfe\xff"),
    ("x", -1, b"\xff" * 8),
    ("t", 2**64 - 1, b"\xff" * 8),
    ("h", 3, b"\3\0\0\0"),
    ("d", 1.0, b"\0\0\0\0\0\0\xf0\x3f"),
    ("o", "/", b"/\0"),
    ("o", "/a_1/B", b"/a_1/B\0"),
    ("g", "a{sv}(ii)", b"a{sv}(ii)\0"),
    ("as", ("x" * 254,), b"x" * 254 + b"\0\xff\0"),
]


@pytest.mark.parametrize("kind, value, data", KNOWN)
def test_known_values_have_the_known_bytes(kind: str, value: Any, data: bytes) -> None:
    assert codec(kind).encode(value) == data
    assert codec(kind).decode(data) == value


@pytest.mark.parametrize(
    "kind, data, reason",
    [
        ("u", b"\1\2\3", "wrong size"),
        ("t", b"", "wrong size"),
        ("b", b"\2", "boolean"),
        ("b", b"", "boolean"),
        ("b", b"\1\1", "boolean"),
        ("s", b"", "NUL"),
        ("s", b"abc", "NUL"),
        ("s", b"a\0b\0", "NUL"),
        ("s", b"\xff\0", "UTF-8"),
        ("s", b"\xed\xa0\x80\0", "UTF-8"),
        ("o", b"a\0", "object path"),
        ("o", b"/a/\0", "object path"),
        ("o", b"/\xc3\xa9\0", "object path"),
        ("g", b"a\0", "signature"),
        ("g", b"ms\0", "signature"),
        ("ms", b"a\0\1", "closing NUL"),
        ("ai", b"\1\2\3\4\5", "remainder"),
        ("as", b"a\0\3", "offset table"),
        ("as", b"a\0\xff", "offset table"),
        ("as", b"a\0\2\0\2", "offset"),
        ("as", b"a\0b\0\2\1\4", "out of order"),
        ("as", b"a\0" + b"\2\0", "offset"),
        ("a(si)", b"hi\0\1\xfe\xff\xff\xff\3\x09", "padding"),
        ("av", b"\0\0s\0\0\0\0\1\0\0s\3\x0b", "padding"),
        ("(si)", b"foo\0\xff\xff\xff\xff\x09", "out of bounds"),
        ("(si)", b"", "wrong size"),
        ("(iy)", b"\0\0\0\0\1", "wrong size"),
        ("(iy)", b"\0\0\0\0\1\0\0\1", "padding"),
        ("(yi)", b"\0\1\0\0\0\0\0\0", "padding"),
        ("()", b"\1", "padding"),
        ("()", b"", "wrong size"),
        ("(is)", b"\1\0\0\0", "NUL"),
        ("(ss)", b"a\0b\0\1", "NUL"),
        ("(sy)", b"a\0\1\1\2", "between tuple and offset table"),
        ("v", b"", "without a type"),
        ("v", b"abc", "without a type"),
        ("v", b"\0", "not a type"),
        ("v", b"\0\xff", "not a type"),
        ("v", b"\0ss", "not a type"),
    ],
)
def test_bytes_that_are_not_normal_are_refused(
    kind: str, data: bytes, reason: str
) -> None:
    with pytest.raises(FormatError, match=reason):
        codec(kind).decode(data)


def test_offsets_wider_than_needed_are_refused() -> None:
    wide = b"x" * 253 + b"\0" + b"\xfe\0"
    assert len(wide) == 256
    with pytest.raises(FormatError, match="wider"):
        codec("as").decode(wide)
    pair = b"x" * 252 + b"\0" + b"\0" + b"\xfd\0"
    with pytest.raises(FormatError, match="wider"):
        codec("(ss)").decode(pair)


@pytest.mark.parametrize("length", [253, 254, 255, 65_533, 65_534, 65_535, 70_000])
def test_offsets_grow_with_the_container(length: int) -> None:
    for kind, value in (("as", ("x" * length,)), ("(ss)", ("x" * length, "y"))):
        assert codec(kind).decode(codec(kind).encode(value)) == value


def test_huge_containers_have_offsets_of_four_and_eight_bytes() -> None:
    # Only the arithmetic: such containers are never made.
    from p2p.ostree.gvariant import _minimal_width, _offset_width  # noqa: PLC0415

    assert [_offset_width(size) for size in (255, 256, 65_535, 65_536, 1 << 32)] == [
        *(1, 2, 2, 4, 8)
    ]
    assert [_minimal_width(size, 1) for size in (254, 255, 65_533, 65_534)] == [
        *(1, 2, 2, 4)
    ]
    assert _minimal_width((1 << 32) - 5, 1) == 4
    assert _minimal_width((1 << 32) - 4, 1) == 8


@pytest.mark.parametrize(
    "kind, value",
    [
        ("y", 256),
        ("u", -1),
        ("u", "text"),
        ("s", "a\0b"),
        ("o", "none"),
        ("g", "m"),
        ("(ss)", ("one",)),
    ],
)
def test_values_that_do_not_fit_are_not_written(kind: str, value: Any) -> None:
    with pytest.raises(ValueError, match="GVariant"):
        codec(kind).encode(value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "m", "(", "(s", "{sv}x", "{s}", "{vs}", "{sv", "z", "ss", "a{sv"),
        "r",
        "a" * (MAX_TYPE_LENGTH + 1),
    ],
)
def test_text_that_is_no_type_has_no_codec(text: str) -> None:
    assert not is_single_type(text)
    with pytest.raises(FormatError, match="not a type"):
        codec(text)


def test_signatures_are_any_number_of_types() -> None:
    assert is_signature("")
    assert is_signature("sa{sv}(ii)")
    assert not is_signature("sa")
    assert not is_signature("ms")


def test_nesting_is_bounded_in_types_and_in_values() -> None:
    assert not is_single_type("a" * (MAX_DEPTH + 2) + "y")
    value = Variant("y", 1)
    for _ in range(MAX_DEPTH + 1):
        value = Variant("v", value)
    with pytest.raises(FormatError, match="deep"):
        codec("v").decode(codec("v").encode(value))
    deep = "a" * 120 + "ai"
    assert codec(deep).decode(b"") == ()
