"""Objects checked while they come: nothing that is not the object gets through."""

import hashlib
import os
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import FormatError, IntegrityError, LimitError
from p2p.ostree import filez
from p2p.ostree.messages import Form
from p2p.ostree.objects import (
    Checksum,
    DirTree,
    FileHeader,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.web.client.decode import ObjectCodec
from p2p.web.client.intake import PIECE_BYTES

HEADER = FileHeader(0, 0, 0o100644)
LIMIT = 1 << 30


def make(content: bytes) -> tuple[ObjectName, bytes, bytes]:
    """Return a file's name, its canonical form and its `.filez`."""
    canonical = HEADER.frame() + content
    name = ObjectName(Checksum(hashlib.sha256(canonical).hexdigest()), ObjectType.FILE)
    file = b"".join(filez.from_content(HEADER, len(content), [content], level=6))
    return name, canonical, file


def decode(
    name: ObjectName, file: bytes, *, form: Form, limit: int = LIMIT, step: int = 1000
) -> bytes:
    decoder = ObjectCodec(name, form, limit=limit).decoder()
    out = b"".join(
        piece
        for start in range(0, len(file), step)
        for piece in decoder.feed(file[start : start + step])
    )
    decoder.finish()
    return out


@given(st.binary(max_size=3000), st.integers(1, 500))
def test_a_file_comes_in_the_form_that_was_asked_for(content: bytes, step: int) -> None:
    name, canonical, file = make(content)
    for form, expected in ((Form.CANONICAL, canonical), (Form.FILEZ, file)):
        assert decode(name, file, form=form, step=step) == expected
        assert ObjectCodec(name, form, limit=LIMIT).whole(file) == expected


def test_metadata_comes_as_it_is_in_every_form() -> None:
    data = DirTree((("file", Checksum("0" * 64)),)).serialize()
    name = ObjectName(checksum_of(data), ObjectType.DIRTREE)
    for form in Form:
        assert decode(name, data, form=form, step=7) == data
        assert ObjectCodec(name, form, limit=LIMIT).whole(data) == data
        with pytest.raises(IntegrityError, match=str(name)):
            decode(name, data + b"x", form=form)
        with pytest.raises(IntegrityError, match=str(name)):
            ObjectCodec(name, form, limit=LIMIT).whole(data + b"x")


def test_the_size_is_known_once_the_header_is_here() -> None:
    name, canonical, file = make(os.urandom(100))
    codec = ObjectCodec(name, Form.CANONICAL, limit=LIMIT)
    sizes = [codec.size]
    decoder = codec.decoder()
    sizes.append(codec.size)
    assert list(decoder.feed(file[:40]))
    sizes.append(codec.size)
    assert sizes == [None, None, len(canonical)]
    codec = ObjectCodec(name, Form.FILEZ, limit=LIMIT)
    assert list(codec.decoder().feed(file))
    assert codec.size is None


def forge(size: int, content: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return HEADER.serialize_filez(size) + deflater.compress(content) + deflater.flush()


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize(
    "damage, error",
    [
        (lambda f: f[:-1], FormatError),
        (lambda f: f[:10], FormatError),
        (lambda _: b"", FormatError),
        (lambda f: f + b"x", FormatError),
        (lambda f: b"\1" + f[1:], FormatError),
        (lambda f: f[:60] + bytes([f[60] ^ 1]) + f[61:], (FormatError, IntegrityError)),
        (lambda _: forge(999, b"hello"), IntegrityError),
        (lambda _: forge(2, b"hello"), IntegrityError),
        (lambda _: forge(5, b"hello"), IntegrityError),
        (lambda _: forge(1 << 40, b"x"), LimitError),
        (lambda _: forge(1 << 29, bytes(1 << 20)), IntegrityError),
    ],
)
def test_what_is_not_the_object_is_refused(
    form: Form,
    damage: Callable[[bytes], bytes],
    error: type[Exception] | tuple[type[Exception], ...],
) -> None:
    name, _, file = make(os.urandom(200))
    with pytest.raises(error):
        decode(name, damage(file), form=form)


def test_content_beyond_the_limit_is_refused_before_it_is_inflated() -> None:
    name, _, file = make(bytes(1001))
    with pytest.raises(LimitError):
        decode(name, file, form=Form.CANONICAL, limit=1000)


def test_what_makes_more_than_one_piece_is_not_decoded_at_once() -> None:
    for size in (PIECE_BYTES - 10, PIECE_BYTES + 1):
        name, canonical, file = make(bytes(size))
        codec = ObjectCodec(name, Form.CANONICAL, limit=LIMIT)
        assert codec.whole(file) is None
        assert decode(name, file, form=Form.CANONICAL) == canonical


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 8])
def test_a_damaged_file_is_refused_at_once_too(damage: bytes) -> None:
    name, _, file = make(b"hello")
    codec = ObjectCodec(name, Form.CANONICAL, limit=LIMIT)
    with pytest.raises(FormatError):
        codec.whole(damage + file[:-1])
    other, _, _ = make(b"other")
    with pytest.raises(IntegrityError):
        ObjectCodec(other, Form.CANONICAL, limit=LIMIT).whole(file)
