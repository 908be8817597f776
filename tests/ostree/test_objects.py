"""Objects: known bytes and checksums, and everything hostile that is refused."""

from dataclasses import replace
from typing import Any

import pytest

from p2p.errors import FormatError, IntegrityError, LimitError
from p2p.ostree.gvariant import Variant, codec
from p2p.ostree.objects import (
    MAX_METADATA_BYTES,
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    ObjectName,
    ObjectType,
    check_metadata,
    checksum_of,
    frame_header,
    from_raw,
    lookup,
    parse_checksum,
    parse_filez_header,
    parse_frame,
    parse_inode,
    parse_metadata,
    parse_object_path,
    raw,
    serialize_inode,
    serialize_metadata,
    split_canonical,
    split_filez_header,
)

# Computed by stock ostree: "hello\n" and a link to "target", owned by root.
HELLO = FileHeader(0, 0, 0o100644)
HELLO_SUM = "44f778e59f0a4748d6b0c90a47347212a231c4ad1e8f7ea5c5dffc7749153a6b"
LINK = FileHeader(0, 0, 0o120777, "target")
LINK_SUM = "a6b40a5400ed082fbe067d2c8397aab54046a089768651c392a36db46d24c1cd"
ROOT_META_SUM = "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488"
TREE_SUM = "3204c78862af256453ac79c3e4a9e1cd4fce49fd515b7234c8f950bfce1c1214"
COMMIT_SUM = "0fa164c8383c76bd982bac80bd88e7b3f4638323afeb849ed1cfb9b50707dcb8"
A, B = Checksum("a" * 64), Checksum("b" * 64)


def test_files_have_the_checksums_of_ostree() -> None:
    assert checksum_of(HELLO.frame() + b"hello\n") == HELLO_SUM
    assert checksum_of(LINK.frame()) == LINK_SUM
    xattrs = ((b"user.a", b"1"), (b"user.b", b"22"))
    named = checksum_of(replace(HELLO, xattrs=xattrs).frame() + b"hello\n")
    assert named == "d1ace085fd642507695e4713cfac4ad16f9b296eb147e21251d7a2980bbe5de4"


def test_directories_and_commits_have_the_checksums_of_ostree() -> None:
    meta = DirMeta(0, 0, 0o040755)
    assert meta.serialize().hex() == "0000000000000000000041ed"
    assert checksum_of(meta.serialize()) == ROOT_META_SUM
    tree = DirTree(files=(("hello", Checksum(HELLO_SUM)), ("lnk", Checksum(LINK_SUM))))
    assert checksum_of(tree.serialize()) == TREE_SUM
    commit = Commit(
        root_dirtree=Checksum(TREE_SUM),
        root_dirmeta=Checksum(ROOT_META_SUM),
        timestamp=1_700_000_000,
        subject="subj",
        metadata=(("ostree.ref-binding", Variant("as", ("m",))),),
    )
    assert checksum_of(commit.serialize()) == COMMIT_SUM
    assert Commit.parse(commit.serialize()) == commit
    assert commit.get("ostree.ref-binding", "as") == ("m",)
    assert commit.get("ostree.ref-binding", "s") is None
    assert commit.get("other", "s") is None
    assert DirTree.parse(tree.serialize()) == tree
    assert DirMeta.parse(meta.serialize()) == meta


def test_a_parent_is_kept() -> None:
    commit = Commit(root_dirtree=A, root_dirmeta=B, timestamp=0, parent=A)
    assert Commit.parse(commit.serialize()).parent == A


def test_the_first_of_two_equal_keys_counts() -> None:
    metadata = (("k", Variant("s", "first")), ("k", Variant("s", "second")))
    assert lookup(metadata, "k", "s") == "first"


def test_an_inode_is_what_a_bare_user_file_has() -> None:
    xattrs = ((b"user.a", b"1"),)
    data = serialize_inode(5, 6, 0o100644, xattrs)
    assert parse_inode(data) == (5, 6, 0o100644, xattrs)


def test_names_and_paths_of_objects() -> None:
    file = ObjectName(A, ObjectType.FILE)
    assert str(file) == f"{A}.file"
    assert file.path() == f"aa/{A[2:]}.file"
    assert file.path(archive=True) == f"aa/{A[2:]}.filez"
    commit = ObjectName(A, ObjectType.COMMIT)
    assert commit.path(archive=True) == f"aa/{A[2:]}.commit"
    for name in (file, commit, ObjectName(A, ObjectType.FILE_XATTRS_LINK)):
        assert parse_object_path(name.path()) == name
        assert parse_object_path(name.path(archive=True)) == name


@pytest.mark.parametrize(
    "path",
    [
        "",
        "aa",
        f"aa/{A[2:]}",
        f"aa/{A[2:]}.exe",
        f"aa{A[2:]}x.file",
        f"aa/{A[3:]}.file",
        f"AA/{A[2:]}.file",
        f"aa/{A[2:]}.file.file",
    ],
)
def test_other_paths_are_no_objects(path: str) -> None:
    with pytest.raises(FormatError):
        parse_object_path(path)


def test_checksums_are_checked() -> None:
    assert from_raw(raw(A)) == A
    for text in ("", "a" * 63, "A" * 64, "a" * 63 + "\n", "a" * 65):
        with pytest.raises(FormatError):
            parse_checksum(text)
    with pytest.raises(FormatError, match="31 bytes"):
        from_raw(bytes(31))
    name = ObjectName(checksum_of(b"x"), ObjectType.DIRTREE)
    check_metadata(name, b"x")
    with pytest.raises(IntegrityError, match="expected"):
        check_metadata(name, b"y")


@pytest.mark.parametrize(
    "parse",
    [
        Commit.parse,
        DirTree.parse,
        DirMeta.parse,
        parse_metadata,
        parse_inode,
        lambda data: check_metadata(ObjectName(A, ObjectType.COMMIT), data),
    ],
)
def test_what_is_too_large_is_refused_unread(parse: Any) -> None:
    with pytest.raises(LimitError):
        parse(bytes(MAX_METADATA_BYTES + 1))


@pytest.mark.parametrize(
    "files, dirs, reason",
    [
        ([("", A)], [], "impossible name"),
        ([(".", A)], [], "impossible name"),
        ([], [("..", A, B)], "impossible name"),
        ([("a/b", A)], [], "impossible name"),
        ([("x" * 256, A)], [], "too long"),
        ([("é" * 128, A)], [], "too long"),
        ([("b", A), ("a", A)], [], "order"),
        ([("a", A), ("a", A)], [], "order"),
        ([], [("b", A, B), ("a", A, B)], "order"),
        ([("a", A)], [("a", A, B)], "alike"),
    ],
)
def test_hostile_directories_are_refused(
    files: list[Any], dirs: list[Any], reason: str
) -> None:
    data = DirTree(tuple(files), tuple(dirs)).serialize()
    with pytest.raises(FormatError, match=reason):
        DirTree.parse(data)


def test_a_directory_with_a_short_checksum_is_refused() -> None:
    data = codec("(a(say)a(sayay))").encode(((("a", b"short"),), ()))
    with pytest.raises(FormatError, match="5 bytes"):
        DirTree.parse(data)


@pytest.mark.parametrize("mode", [0o100644, 0o040755 | 1 << 20, 0, 0o140755])
def test_a_directorys_metadata_is_a_directorys(mode: int) -> None:
    with pytest.raises(FormatError, match="mode"):
        DirMeta.parse(DirMeta(0, 0, mode).serialize())


def test_xattrs_are_written_in_order() -> None:
    unsorted = DirMeta(0, 0, 0o040755, ((b"user.b", b"2"), (b"user.a", b"1")))
    parsed = DirMeta.parse(unsorted.serialize())
    assert parsed.xattrs == ((b"user.a", b"1"), (b"user.b", b"2"))


@pytest.mark.parametrize(
    "pairs, reason",
    [
        (((b"\0", b""),), "impossible name"),
        (((b"", b""),), "impossible name"),
        (((b"user.a", b""),), "impossible name"),
        (((b"a\0b\0", b""),), "impossible name"),
        (((b"b\0", b""), (b"a\0", b"")), "order"),
        (((b"a\0", b""), (b"a\0", b"")), "order"),
    ],
)
def test_hostile_xattrs_are_refused(pairs: Any, reason: str) -> None:
    data = codec("(uuua(ayay))").encode((0, 0, 0xED410000, pairs))
    with pytest.raises(FormatError, match=reason):
        DirMeta.parse(data)


@pytest.mark.parametrize(
    "header",
    [
        FileHeader(0, 0, 0o040755),
        FileHeader(0, 0, 0o020644),
        FileHeader(0, 0, 0o100644, "target"),
        FileHeader(0, 0, 0o120777, ""),
        FileHeader(0, 0, 0o120777, "x" * 4096),
        FileHeader(0, 0, 0o100644 | 1 << 20),
    ],
)
def test_hostile_file_headers_are_refused(header: FileHeader) -> None:
    with pytest.raises(FormatError):
        FileHeader.parse(header.serialize())
    with pytest.raises(FormatError):
        parse_filez_header(header.serialize_filez(0)[8:])


def test_a_device_number_is_refused() -> None:
    data = codec("(uuuusa(ayay))").encode((0, 0, 0xA4810000, 5, "", ()))
    with pytest.raises(FormatError, match="device"):
        FileHeader.parse(data)


def test_canonical_form_is_split_into_header_and_content() -> None:
    canonical = HELLO.frame() + b"hello\n"
    header, start = split_canonical(canonical)
    assert (header, canonical[start:]) == (HELLO, b"hello\n")
    assert split_canonical(LINK.frame()) == (LINK, len(LINK.frame()))
    assert FileHeader.parse(LINK.serialize()).is_symlink


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"short", "shorter than its frame"),
        (frame_header(b"x" * 20)[:-1], "shorter than its header"),
        (b"\0\0\0\x10\0\0\0\1" + bytes(16), "padding"),
        (b"\xff\xff\xff\xff\0\0\0\0", "header of"),
        (LINK.frame() + b"x", "with content"),
    ],
)
def test_broken_canonical_forms_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        split_canonical(data)


def test_a_frame_is_a_length() -> None:
    assert parse_frame(frame_header(b"abc")) == 3


LONG = FileHeader(0, 0, 0o100644, "", ((b"user.long", b"x" * 300),))


@pytest.mark.parametrize("header", [HELLO, LINK, LONG])
def test_the_header_of_a_filez_is_read_short_or_long(header: FileHeader) -> None:
    size = 0 if header.is_symlink else 2**40
    variant = header.serialize_filez(size)[8:]
    assert split_filez_header(variant) == (header, size, header.serialize())
    assert parse_filez_header(variant) == (header, size)


def test_a_filez_of_a_link_has_no_content() -> None:
    variant = codec("(tuuuusa(ayay))").encode((1 << 56, 0, 0, 0xFFA10000, 0, "x", ()))
    with pytest.raises(FormatError, match="with content"):
        parse_filez_header(variant)


def test_metadata_keeps_its_order() -> None:
    metadata = (("z", Variant("u", 1)), ("a", Variant("s", "x")))
    assert parse_metadata(serialize_metadata(metadata)) == metadata
