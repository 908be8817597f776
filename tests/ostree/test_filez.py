"""The .filez form: known bytes, any pieces, and every lie that is refused."""

import importlib
import random
import sys
import zlib

import pytest

from p2p.errors import FormatError, IntegrityError, LimitError
from p2p.ostree import inflate
from p2p.ostree.filez import (
    DEFAULT_LEVEL,
    STEP_BYTES,
    FilezReader,
    from_content,
    to_canonical,
)
from p2p.ostree.objects import FileHeader

HELLO = FileHeader(0, 0, 0o100644)
LINK = FileHeader(0, 0, 0o120777, "target")
# Written by stock ostree.
HELLO_FILEZ = bytes.fromhex(
    "0000001a00000000000000000000000600000000000000"
    "00000081a4000000000019cb48cdc9c9e70200"
)


def pack(header: FileHeader, content: bytes, *, claim: int | None = None) -> bytes:
    size = len(content) if claim is None else claim
    return b"".join(from_content(header, size, [content], level=DEFAULT_LEVEL))


def test_it_has_the_bytes_of_ostree() -> None:
    assert pack(HELLO, b"hello\n") == HELLO_FILEZ
    assert to_canonical(HELLO_FILEZ, limit=6) == HELLO.frame() + b"hello\n"


def test_a_link_has_no_deflate_stream() -> None:
    packed = pack(LINK, b"")
    assert len(packed) == 40
    assert to_canonical(packed, limit=0) == LINK.frame()


def test_it_may_come_byte_by_byte() -> None:
    reader = FilezReader(limit=6)
    got = [
        p for i in range(len(HELLO_FILEZ)) for p in reader.feed(HELLO_FILEZ[i : i + 1])
    ]
    reader.finish()
    assert b"".join(got) == HELLO.frame() + b"hello\n"
    assert (reader.header, reader.size) == (HELLO, 6)


def test_much_content_is_handed_on_in_steps() -> None:
    content = bytes(3 * STEP_BYTES + 1)
    reader = FilezReader(limit=len(content))
    pieces = list(reader.feed(pack(HELLO, content)))
    reader.finish()
    assert b"".join(pieces[1:]) == content
    assert max(map(len, pieces[1:])) == STEP_BYTES


def test_an_empty_file_is_complete_with_its_empty_stream() -> None:
    assert to_canonical(pack(HELLO, b""), limit=0) == HELLO.frame()


@pytest.mark.parametrize(
    "data, error, reason",
    [
        (HELLO_FILEZ[:3], FormatError, "within its header"),
        (HELLO_FILEZ[:20], FormatError, "within its header"),
        (HELLO_FILEZ[:34], FormatError, "within its deflate"),
        (HELLO_FILEZ[:-1], FormatError, "within its deflate"),
        (HELLO_FILEZ + b"x", FormatError, "after the end"),
        (HELLO_FILEZ[:34] + b"\xff" * 8, FormatError, "broken"),
        (pack(HELLO, b"hello\n", claim=5), IntegrityError, "more"),
        (pack(HELLO, b"hello\n", claim=7), IntegrityError, "fewer"),
        (pack(HELLO, b"hello\n", claim=2**40), LimitError, "claims"),
        (pack(LINK, b"") + b"\3\0", FormatError, "with content"),
        (pack(LINK, b"") + b"x", FormatError, "with content"),
    ],
)
def test_lies_are_refused(data: bytes, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        to_canonical(data, limit=1000)


def test_a_second_stream_behind_the_first_is_refused_in_a_later_piece() -> None:
    reader = FilezReader(limit=6)
    assert len(list(reader.feed(HELLO_FILEZ))) == 2
    with pytest.raises(FormatError, match="after the end"):
        list(reader.feed(b"more"))


def test_the_level_is_the_one_asked_for() -> None:
    content = b"some text, some more text, " * 1000
    for level in (1, 9):
        packed = b"".join(from_content(HELLO, len(content), [content], level=level))
        deflater = zlib.compressobj(level, zlib.DEFLATED, -15)
        assert packed.endswith(deflater.compress(content) + deflater.flush())


def test_pieces_that_deflate_to_something_at_once_are_handed_on() -> None:
    noise = random.Random(1).randbytes(300_000)
    pieces = [noise[:150_000], noise[150_000:]]
    packed = list(from_content(HELLO, len(noise), pieces, level=1))
    assert len(packed) > 2
    assert to_canonical(b"".join(packed), limit=len(noise))[-len(noise) :] == noise


def test_without_zlib_ng_zlib_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert inflate.BACKEND == "zlib_ng"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
        plain = importlib.reload(inflate)
        assert plain.BACKEND == "zlib"
        stream = plain.inflater()
        assert stream.decompress(HELLO_FILEZ[34:], 7) == b"hello\n"
        assert stream.eof
        with pytest.raises(plain.BROKEN):
            plain.inflater().decompress(b"\xff" * 9, 1)
    importlib.reload(inflate)
