"""Content as zstd frames."""

import os

import pytest
from backports import zstd

from p2p.wire import packing
from p2p.wire.packing import abilities, pack, unpack
from p2p.wire.rule import RuleError
from tests.wire.vectors import FRAME, PACKED

TEXT = b"what is said twice is said twice. " * 1000


def packed(*pieces: bytes) -> bytes:
    """Return the frame of something that packs well."""
    frame = pack(pieces)
    assert frame is not None
    return frame


def test_pieces_become_one_frame_that_says_how_much_is_in_it() -> None:
    frame = packed(TEXT, b"", b"end")
    assert len(frame) < len(TEXT) / 20
    assert unpack(frame, len(TEXT) + 3) == TEXT + b"end"
    assert zstd.get_frame_info(frame).decompressed_size == len(TEXT) + 3


def test_the_documented_frame_is_read() -> None:
    assert unpack(FRAME, len(PACKED)) == PACKED


@pytest.mark.parametrize("pieces", [[], [b""], [b"a"], [os.urandom(5000)]])
def test_what_packs_badly_is_left_as_it_is(pieces: list[bytes]) -> None:
    assert pack(pieces) is None


@pytest.mark.parametrize(
    "frame, size, why",
    [
        (b"", 1, "not a zstd frame"),
        (b"no frame at all, but long enough", 10, "not a zstd frame"),
        (packed(TEXT), len(TEXT) - 1, "are due"),
        (packed(TEXT)[:-1], len(TEXT), "does not hold"),
        (packed(TEXT) + b"x", len(TEXT), "does not hold"),
        (packed(TEXT) * 2, len(TEXT), "does not hold"),
        (bytes.fromhex("502a4d180400000061626364"), 4, "are due"),
    ],
    ids=["empty", "other", "size", "short", "long", "two", "skippable"],
)
def test_anything_but_one_frame_of_that_size_is_refused(
    frame: bytes, size: int, why: str
) -> None:
    with pytest.raises(RuleError, match=why):
        unpack(frame, size)


def test_a_frame_that_does_not_declare_its_size_is_refused() -> None:
    made = zstd.ZstdCompressor()
    frame = made.compress(TEXT) + made.flush()
    with pytest.raises(RuleError, match="a frame of None bytes"):
        unpack(frame, len(TEXT))


def test_damaged_content_is_refused() -> None:
    checked = zstd.compress(TEXT, options={zstd.CompressionParameter.checksum_flag: 1})
    damaged = checked[:-1] + bytes([checked[-1] ^ 1])
    with pytest.raises(RuleError, match="not a zstd frame"):
        unpack(damaged, len(TEXT))


def test_without_zstd_nothing_is_packed_or_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = packed(TEXT)
    monkeypatch.setitem(packing.__dict__, "_zstd", None)
    monkeypatch.setitem(packing.__dict__, "IS_AVAILABLE", False)
    assert pack([TEXT]) is None
    assert abilities(compress=True) == frozenset()
    with pytest.raises(RuleError, match="nobody can unpack"):
        unpack(frame, len(TEXT))


def test_zstd_is_looked_for_where_this_python_may_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fail(name: str) -> None:
        asked.append(name)
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", fail)
    assert packing._load() is None
    assert asked == ["compression.zstd", "backports.zstd"]


def test_it_can_be_switched_off() -> None:
    assert abilities(compress=True) == {"zstd"}
    assert abilities(compress=False) == frozenset()
