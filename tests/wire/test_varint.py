"""Ascending numbers as varints of their distances."""

import pytest

from p2p.wire.limits import U32
from p2p.wire.rule import RuleError
from p2p.wire.varint import pack_ascending, unpack_ascending


@pytest.mark.parametrize(
    "numbers, packed",
    [
        ((), ""),
        ((0,), "00"),
        ((0, 1, 2), "000000"),
        ((5, 7), "0501"),
        ((127,), "7f"),
        ((128,), "8001"),
        ((0, 300), "00ab02"),
        ((U32,), "ffffffff0f"),
    ],
)
def test_numbers_have_one_form(numbers: tuple[int, ...], packed: str) -> None:
    assert pack_ascending(numbers).hex() == packed
    assert unpack_ascending(bytes.fromhex(packed), 3) == numbers


@pytest.mark.parametrize("numbers", [(1, 1), (2, 1), (-1,)])
def test_numbers_that_do_not_ascend_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(RuleError, match="ascend"):
        pack_ascending(numbers)


@pytest.mark.parametrize(
    "packed, why",
    [
        ("80", "cut off"),
        ("8000", "needless"),
        ("808080808001", "five bytes"),
        ("ffffffff1f", "above"),
        ("ffffffff0f00", "above"),
        ("00000000", "more than 3"),
    ],
)
def test_other_forms_are_refused(packed: str, why: str) -> None:
    with pytest.raises(RuleError, match=why):
        unpack_ascending(bytes.fromhex(packed), 3)
