"""Answers divided into a head and bulk, and put together."""

import pytest

from p2p.wire import messages as m
from p2p.wire.bulk import BatchHead, CommitDataHead, MapHead, join, split
from tests.wire.samples import ANSWERS, COMMIT, R1

BULK = [a for a in ANSWERS.values() if isinstance(a, m.BulkAnswer)]


@pytest.mark.parametrize("answer", BULK, ids=lambda answer: type(answer).__name__)
def test_an_answer_is_put_together_again(answer: m.BulkAnswer) -> None:
    head, pieces = split(answer)
    data = bytearray(b"".join(pieces))
    assert head.bulk_bytes == len(data)
    assert join(head, data) == answer


def test_what_is_missing_takes_no_bulk() -> None:
    batch = m.Batch(R1, (m.Miss.ELSEWHERE, b"", b"here"))
    assert split(batch) == (BatchHead(R1, (-4, 0, 4)), [b"", b"here"])
    commit = m.CommitData(R1, COMMIT, b"c", None)
    assert split(commit)[0] == CommitDataHead(R1, COMMIT, 1, -1)
    assert split(m.CommitData(R1, COMMIT, b"c", b""))[0].bulk_bytes == 1
    assert split(m.Map(R1))[0] == MapHead(R1, 0)
    assert join(MapHead(R1, 0), bytearray()) == m.Map(R1, None)


def test_bulk_is_not_copied_when_sent() -> None:
    data = bytes(1000)
    assert split(m.Unit(R1, data))[1][0] is data
