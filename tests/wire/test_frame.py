"""Frames are cut out of a stream wherever it was cut."""

import sys

import pytest

from p2p.wire.frame import FrameReader, Portion, control_frame, slice_header
from p2p.wire.limits import MAX_CONTROL_BYTES, MAX_SLICE_BYTES
from p2p.wire.rule import RuleError


def read(*pieces: bytes) -> list[bytes | tuple[int, bytes]]:
    reader = FrameReader()
    found: list[bytes | tuple[int, bytes]] = []
    for piece in pieces:
        reader.feed(piece)
        while (frame := reader.next()) is not None:
            if isinstance(frame, Portion):
                found.append((frame.request, bytes(frame.data)))
            else:
                found.append(frame)
    return found


def test_frames_follow_each_other() -> None:
    stream = control_frame(b"one") + slice_header(7, 4) + b"bulk" + control_frame(b"2")
    assert read(stream) == [b"one", (7, b"bulk"), b"2"]


def test_a_control_body_is_given_whole_and_bulk_as_it_comes() -> None:
    stream = control_frame(b"control") + slice_header(7, 4) + b"bulk"
    pieces = [bytes((byte,)) for byte in stream]
    assert read(*pieces) == [b"control", (7, b"b"), (7, b"u"), (7, b"l"), (7, b"k")]


def test_a_slice_goes_on_in_the_next_bytes() -> None:
    assert read(slice_header(7, 4) + b"bu", b"lk" + control_frame(b"x")) == [
        (7, b"bu"),
        (7, b"lk"),
        b"x",
    ]


def test_it_is_known_how_much_a_slice_lacks() -> None:
    reader = FrameReader()
    stream = control_frame(b"x") + slice_header(7, 4) + b"bulk" + control_frame(b"y")
    lacking = []
    for byte in stream:
        reader.feed(bytes((byte,)))
        while reader.next() is not None:
            pass
        lacking.append(reader.slice_left)
    assert lacking == [0] * 8 + [4] * 5 + [3, 2, 1] + [0] * 6


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_slice_header_may_be_cut_anywhere(cut: int) -> None:
    header = slice_header(7, 1)
    assert read(header[:cut], header[cut:], b"x") == [(7, b"x")]


@pytest.mark.parametrize(
    "word",
    [
        0x00000000,
        0x01000000,
        0x02000001,
        0x81000001,
        0xFF000001,
        0x00000000 + MAX_CONTROL_BYTES + 1,
        0x01000000 + MAX_SLICE_BYTES + 1,
    ],
)
def test_empty_oversized_and_unknown_frames_are_refused(word: int) -> None:
    with pytest.raises(RuleError, match="frame of kind"):
        read(word.to_bytes(4, "big"))


def test_frames_of_the_greatest_size_pass() -> None:
    body, data = bytes(MAX_CONTROL_BYTES), bytes(MAX_SLICE_BYTES)
    stream = control_frame(body) + slice_header(1, len(data)) + data
    assert read(stream) == [body, (1, data)]


def test_bulk_belongs_to_a_request() -> None:
    with pytest.raises(RuleError, match="request 0"):
        read(slice_header(0, 1))


def test_an_idle_reader_keeps_nothing_alive() -> None:
    reader = FrameReader()
    chunk = control_frame(b"body") + b"\0\0"
    before = sys.getrefcount(chunk)
    reader.feed(chunk)
    assert reader.next() == b"body"
    assert sys.getrefcount(chunk) > before
    assert reader.next() is None
    assert sys.getrefcount(chunk) == before
