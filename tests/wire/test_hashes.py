"""What the signature of a list of unit hashes covers."""

import pytest

from p2p.ostree.objects import ObjectType
from p2p.wire.hashes import statement, unit_count
from p2p.wire.limits import UNIT_BYTES
from tests.wire.samples import name


@pytest.mark.parametrize(
    "size, count", [(0, 0), (1, 1), (UNIT_BYTES, 1), (UNIT_BYTES + 1, 2)]
)
def test_the_last_unit_may_be_short(size: int, count: int) -> None:
    assert unit_count(size) == count


def test_a_statement_changes_with_everything_it_claims() -> None:
    hashes = bytes(64)
    statements = {
        statement(name("a"), 600_000, 0, hashes),
        statement(name("b"), 600_000, 0, hashes),
        statement(name("a", ObjectType.DIRTREE), 600_000, 0, hashes),
        statement(name("a"), 600_001, 0, hashes),
        statement(name("a"), 600_000, 1, hashes),
        statement(name("a"), 600_000, 0, hashes[32:]),
        statement(name("a"), 600_000, 0, b"\1" + hashes[1:]),
    }
    assert len(statements) == 7
