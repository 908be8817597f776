"""Detached metadata of two hands made one."""

import pytest

from p2p.errors import FormatError, LimitError
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import Metadata, parse_metadata, serialize_metadata
from p2p.trust.sign import MAX_COMMITMETA_BYTES
from p2p.web.treehub.detached import is_newer, merge_detached


def meta(**values: Variant) -> bytes:
    return serialize_metadata(
        tuple((key.replace("_", "."), value) for key, value in values.items())
    )


def signed(*signatures: bytes) -> Variant:
    return Variant("aay", signatures)


def merged(mine: bytes, theirs: bytes) -> Metadata:
    return parse_metadata(merge_detached(mine, theirs))


def test_the_first_is_taken_as_it_is() -> None:
    data = meta(note=Variant("s", "x"))
    assert merge_detached(None, data) is data
    with pytest.raises(FormatError):
        merge_detached(None, b"nonsense")


def test_signatures_of_every_kind_are_united_in_order() -> None:
    mine = meta(ostree_sign_ed25519=signed(b"1", b"2"), ostree_gpgsigs=signed(b"g"))
    theirs = meta(ostree_gpgsigs=signed(b"h", b"g"), ostree_sign_ed25519=signed(b"3"))
    assert merged(mine, theirs) == (
        ("ostree.sign.ed25519", signed(b"1", b"2", b"3")),
        ("ostree.gpgsigs", signed(b"g", b"h")),
    )


def test_what_is_there_is_kept_and_what_is_new_is_added() -> None:
    mine = meta(note=Variant("s", "mine"), ostree_sign_ed25519=Variant("s", "odd"))
    theirs = meta(
        note=Variant("s", "theirs"),
        more=Variant("u", 1),
        ostree_sign_ed25519=signed(b"1"),
    )
    assert merged(mine, theirs) == (
        ("note", Variant("s", "mine")),
        ("ostree.sign.ed25519", Variant("s", "odd")),
        ("more", Variant("u", 1)),
    )


def test_nothing_new_leaves_the_very_bytes() -> None:
    mine = meta(ostree_sign_ed25519=signed(b"1", b"2"), note=Variant("s", "x"))
    assert merge_detached(mine, meta(ostree_sign_ed25519=signed(b"2"))) is mine
    assert merge_detached(mine, meta(note=Variant("s", "other"))) is mine
    assert not is_newer(meta(ostree_sign_ed25519=signed(b"2")), mine)
    assert is_newer(meta(ostree_sign_ed25519=signed(b"3")), mine)
    assert is_newer(mine, None)


def test_the_outcome_is_bounded_in_bytes_and_in_signatures() -> None:
    half = MAX_COMMITMETA_BYTES * 2 // 3
    with pytest.raises(LimitError, match="would grow"):
        merge_detached(meta(a=Variant("ay", b"x" * half)), meta(b=signed(b"y" * half)))
    many = meta(ostree_gpgsigs=signed(*(b"%d" % n for n in range(40))))
    more = meta(ostree_gpgsigs=signed(*(b"%d" % n for n in range(40, 80))))
    with pytest.raises(LimitError, match="would hold 80"):
        merge_detached(many, more)
    big = meta(a=Variant("ay", b"x" * (MAX_COMMITMETA_BYTES + 1)))
    for mine, theirs in ((None, big), (big, many)):
        with pytest.raises(LimitError):
            merge_detached(mine, theirs)
