"""Whatever the bytes are: a parser gives a value or FormatError, and nothing else."""

import contextlib
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from p2p.errors import ConfigError, FormatError, IntegrityError
from p2p.ostree import filez
from p2p.ostree.gvariant import Variant, codec, is_signature, is_single_type
from p2p.ostree.keyfile import KeyFile
from p2p.ostree.objects import (
    FRAME_BYTES,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    ObjectName,
    ObjectType,
    parse_checksum,
    parse_filez_header,
    parse_frame,
    parse_inode,
    parse_metadata,
    parse_object_path,
    serialize_inode,
    serialize_metadata,
    split_canonical,
)
from p2p.ostree.refs import check_ref, parse_refspec
from p2p.ostree.sizes import ObjectSize, parse_sizes, serialize_sizes
from p2p.ostree.summary import parse_summary
from tests.property.variants import OSTREE_TYPES, types, values

CHECKSUM = st.binary(min_size=32, max_size=32).map(
    lambda raw: parse_checksum(raw.hex())
)
UINT32 = st.integers(0, 2**32 - 1)
NAME = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in (".", ".."))
XATTRS = st.dictionaries(
    st.binary(min_size=1, max_size=20).filter(lambda name: 0 not in name),
    st.binary(max_size=40),
    max_size=4,
).map(lambda found: tuple(sorted(found.items())))


# -- GVariant ------------------------------------------------------------------


@given(st.data(), types())
def test_a_value_survives_being_written_and_read(
    data: st.DataObject, kind: str
) -> None:
    value = data.draw(values(kind))
    written = codec(kind).encode(value)
    assert codec(kind).decode(written) == value


@given(st.one_of(st.sampled_from(OSTREE_TYPES), types()), st.binary(max_size=300))
@example("(sv)", b"")
@example("as", b"\xff" * 300)
def test_what_decodes_is_the_one_encoding_of_its_value(kind: str, data: bytes) -> None:
    try:
        value = codec(kind).decode(data)
    except FormatError:
        return
    assert codec(kind).encode(value) == data


@given(st.data(), st.one_of(st.sampled_from(OSTREE_TYPES), types()))
def test_a_damaged_encoding_is_refused_or_another_value(
    data: st.DataObject, kind: str
) -> None:
    written = bytearray(codec(kind).encode(data.draw(values(kind))))
    assume(written)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(written) - 1))
        written[at] = data.draw(st.integers(0, 255))
    damaged = bytes(written)[: data.draw(st.integers(0, len(written)))]
    for candidate in (bytes(written), damaged):
        with contextlib.suppress(FormatError):
            assert codec(kind).encode(codec(kind).decode(candidate)) == candidate


@given(st.text("abynqiuhxtdsogvm(){}?*r ", max_size=30))
def test_any_text_is_a_type_or_refused(text: str) -> None:
    if is_single_type(text):
        assert is_signature(text) is ("m" not in text)
        codec(text)
    else:
        with pytest.raises(FormatError):
            codec(text)


# -- parsers of whole things ---------------------------------------------------------

PARSERS: dict[str, Callable[[bytes], Any]] = {
    "commit": Commit.parse,
    "dirtree": DirTree.parse,
    "dirmeta": DirMeta.parse,
    "file header": FileHeader.parse,
    "filez header": parse_filez_header,
    "inode": parse_inode,
    "metadata": parse_metadata,
    "canonical": split_canonical,
    "summary": parse_summary,
    "sizes": lambda data: parse_sizes([data]),
    "checksum": lambda data: parse_checksum(data.decode("latin-1")),
    "object path": lambda data: parse_object_path(data.decode("latin-1")),
    "ref": lambda data: check_ref(data.decode("latin-1")),
    "refspec": lambda data: parse_refspec(data.decode("latin-1")),
}


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(name: str, data: bytes) -> None:
    with contextlib.suppress(FormatError):
        PARSERS[name](data)


_VARIANT_PARSERS = {
    "(a{sv}aya(say)sstayay)": Commit.parse,
    "(a(say)a(sayay))": DirTree.parse,
    "(uuua(ayay))": DirMeta.parse,
    "(uuuusa(ayay))": FileHeader.parse,
    "(tuuuusa(ayay))": parse_filez_header,
    "(a(s(taya{sv}))a{sv})": parse_summary,
}


@pytest.mark.parametrize("kind", _VARIANT_PARSERS)
@given(data=st.data())
def test_any_variant_of_the_right_type_parses_or_is_refused(
    kind: str, data: st.DataObject
) -> None:
    written = codec(kind).encode(data.draw(values(kind)))
    with contextlib.suppress(FormatError):
        _VARIANT_PARSERS[kind](written)


@given(st.binary(max_size=40))
def test_any_frame_is_a_length_or_refused(data: bytes) -> None:
    assume(len(data) >= FRAME_BYTES)
    with contextlib.suppress(FormatError):
        assert parse_frame(data) >= 0


@given(st.text(max_size=200), st.text(max_size=5), st.text(max_size=5))
def test_any_text_is_a_key_file_or_refused(text: str, group: str, key: str) -> None:
    with contextlib.suppress(ConfigError):
        keys = KeyFile.parse(text, where="test")
        assert str(KeyFile.parse(str(keys), where="again")) == str(keys)
        for name in [*keys.groups(), group]:
            for each in [*keys.keys(name), key]:
                for read in (keys.string, keys.strings):
                    with contextlib.suppress(ConfigError):
                        read(name, each)


@given(
    st.text("abc-_ 1", min_size=1), st.text("abc-", min_size=1), st.text(max_size=20)
)
def test_what_is_set_in_a_key_file_is_read_back(
    group: str, key: str, value: str
) -> None:
    keys = KeyFile(where="test")
    try:
        keys.set(group, key, value)
    except ConfigError:
        return
    again = KeyFile.parse(str(keys), where="again")
    assert again.string(group, key) == value


# -- round trips ---------------------------------------------------------------------


@given(
    CHECKSUM,
    CHECKSUM,
    st.integers(0, 2**64 - 1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.none() | CHECKSUM,
    values("a{sv}"),
)
def test_commits_survive(
    tree: Any, meta: Any, timestamp: int, text: str, parent: Any, metadata: Any
) -> None:
    commit = Commit(
        root_dirtree=tree,
        root_dirmeta=meta,
        timestamp=timestamp,
        subject=text,
        body=text[::-1],
        parent=parent,
        metadata=metadata,
    )
    assert Commit.parse(commit.serialize()) == commit
    assert parse_metadata(serialize_metadata(metadata)) == metadata


@given(
    st.dictionaries(NAME, CHECKSUM, max_size=6),
    st.dictionaries(NAME, st.tuples(CHECKSUM, CHECKSUM), max_size=6),
)
def test_directories_survive(files: dict[str, Any], dirs: dict[str, Any]) -> None:
    for name in files:
        dirs.pop(name, None)
    tree = DirTree(
        files=tuple(sorted(files.items(), key=lambda item: item[0].encode())),
        dirs=tuple(
            (name, *dirs[name]) for name in sorted(dirs, key=lambda name: name.encode())
        ),
    )
    assert DirTree.parse(tree.serialize()) == tree


@given(UINT32, UINT32, st.integers(0, 0o7777), XATTRS)
def test_directory_metadata_survives(
    uid: int, gid: int, mode: int, xattrs: Any
) -> None:
    meta = DirMeta(uid, gid, 0o040000 | mode, xattrs)
    assert DirMeta.parse(meta.serialize()) == meta
    assert parse_inode(serialize_inode(uid, gid, meta.mode, xattrs)) == (
        uid,
        gid,
        meta.mode,
        xattrs,
    )


HEADERS = st.one_of(
    st.builds(
        FileHeader,
        UINT32,
        UINT32,
        st.integers(0, 0o7777).map(lambda mode: 0o100000 | mode),
        st.just(""),
        XATTRS,
    ),
    st.builds(
        FileHeader,
        UINT32,
        UINT32,
        st.just(0o120777),
        st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=50,
        ),
        XATTRS,
    ),
)


@given(HEADERS, st.binary(max_size=200), st.integers(1, 9), st.integers(1, 50))
def test_files_survive_deflating_in_any_pieces(
    header: FileHeader, content: bytes, level: int, step: int
) -> None:
    if header.is_symlink:
        content = b""
    pieces = [content[i : i + step] for i in range(0, len(content), step)]
    packed = b"".join(filez.from_content(header, len(content), pieces, level=level))
    canonical = header.frame() + content
    assert filez.to_canonical(packed, limit=len(content)) == canonical
    assert split_canonical(canonical) == (header, len(header.frame()))
    reader = filez.FilezReader(limit=len(content))
    got = [
        piece
        for start in range(0, len(packed), step)
        for piece in reader.feed(packed[start : start + step])
    ]
    reader.finish()
    assert b"".join(got) == canonical
    assert reader.header == header
    assert reader.size == len(content)


@given(HEADERS, st.binary(max_size=100), st.data())
def test_a_damaged_filez_is_refused_or_within_its_limit(
    header: FileHeader, content: bytes, data: st.DataObject
) -> None:
    if header.is_symlink:
        content = b""
    packed = bytearray(
        b"".join(filez.from_content(header, len(content), [content], level=6))
    )
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] = data.draw(st.integers(0, 255))
    try:
        canonical = filez.to_canonical(bytes(packed), limit=1000)
    except (FormatError, IntegrityError):
        return
    got, start = split_canonical(canonical)
    assert len(canonical) - start <= 1000
    assert got.frame() == canonical[:start]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_filez_or_refused(data: bytes) -> None:
    with contextlib.suppress(FormatError, IntegrityError):
        filez.to_canonical(data, limit=1000)


@given(st.binary(max_size=100))
def test_any_bytes_behind_a_header_inflate_or_are_refused(data: bytes) -> None:
    header = FileHeader(0, 0, 0o100644)
    with contextlib.suppress(FormatError, IntegrityError):
        canonical = filez.to_canonical(header.serialize_filez(50) + data, limit=50)
        assert len(canonical) == len(header.frame()) + 50


def test_a_decompression_bomb_stops_at_the_size_it_claimed() -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflater.compress(bytes(50 << 20)) + deflater.flush()
    header = FileHeader(0, 0, 0o100644)
    reader = filez.FilezReader(limit=1 << 40)
    pieces = reader.feed(header.serialize_filez(1000) + bomb)
    assert next(pieces) == header.frame()
    with pytest.raises(IntegrityError, match="more"):
        next(pieces)


@given(
    st.lists(
        st.builds(
            ObjectSize,
            st.builds(ObjectName, CHECKSUM, st.sampled_from(ObjectType)),
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**64 - 1),
        ),
        max_size=5,
        unique_by=lambda size: size.name,
    )
)
def test_sizes_survive(sizes: list[ObjectSize]) -> None:
    variant = serialize_sizes(sizes)
    written = codec("aay").encode(variant.value)
    assert list(parse_sizes(codec("aay").decode(written))) == sorted(
        sizes, key=lambda size: size.name
    )


@given(types(), st.data())
def test_variants_carry_their_type(kind: str, data: st.DataObject) -> None:
    value = Variant(kind, data.draw(values(kind)))
    again = codec("v").decode(codec("v").encode(value))
    assert again == value
