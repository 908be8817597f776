"""The tables that a request goes through."""

from collections.abc import Iterator

import pytest

from p2p.wire import messages as m
from p2p.wire.bulk import BatchHead, UnitHead
from p2p.wire.exchange import (
    FETCH,
    WATCH,
    Exchange,
    Phase,
    Signal,
    Table,
    check_answer,
)
from p2p.wire.rule import RuleError
from tests.wire.samples import ANSWERS, R1, REQUESTS

CANCELLED = {
    Phase.WAITING: Phase.CANCELLING,
    Phase.FLOWING: Phase.DRAINING,
    Phase.WATCHING: Phase.ENDING,
    Phase.DONE: Phase.DONE,
}
TABLES = pytest.mark.parametrize("table", [FETCH, WATCH], ids=["fetch", "watch"])


def moves(table: Table) -> Iterator[tuple[Phase, Signal, Phase]]:
    for phase, row in table.items():
        for signal, after in row.items():
            yield phase, signal, after


@TABLES
def test_every_phase_in_a_table_is_reached_and_ends(table: Table) -> None:
    reached = {Phase.WAITING} | {after for _, _, after in moves(table)}
    assert reached == {*table, Phase.DONE}
    for row in table.values():
        assert Phase.DONE in row.values()


@TABLES
def test_cancel_is_possible_once_and_in_every_phase(table: Table) -> None:
    for phase, row in table.items():
        assert row.get(Signal.CANCEL) == CANCELLED.get(phase)


@TABLES
def test_cancelled_answers_cancel_and_nothing_else(table: Table) -> None:
    for phase, row in table.items():
        cancelled = phase in CANCELLED.values()
        assert (row.get(Signal.CANCELLED) is Phase.DONE) is cancelled


@TABLES
def test_what_was_legal_before_cancel_is_legal_after(table: Table) -> None:
    for phase, signal, after in moves(table):
        if phase in CANCELLED and signal is not Signal.CANCEL:
            assert table[CANCELLED[phase]][signal] is CANCELLED[after]


def test_a_signal_that_the_table_does_not_have_is_refused() -> None:
    exchange = Exchange(REQUESTS["WANT"])
    with pytest.raises(RuleError, match="slice for a request that is waiting"):
        exchange.move(Signal.SLICE)
    assert exchange.phase is Phase.WAITING


def test_bulk_is_counted_to_the_last_byte() -> None:
    exchange = Exchange(REQUESTS["GET_UNIT"])
    exchange.begin(UnitHead(R1, 5))
    assert exchange.receive_bulk(memoryview(b"abc")) is None
    assert exchange.bulk_bytes == (3, 5)
    with pytest.raises(RuleError, match="where 2 are due"):
        exchange.receive_bulk(memoryview(b"def"))
    assert exchange.receive_bulk(memoryview(b"de")) == m.Unit(R1, b"abcde")
    assert exchange.phase is Phase.DONE


def test_there_is_no_answer_before_it_is_complete() -> None:
    exchange = Exchange(REQUESTS["GET_UNIT"])
    with pytest.raises(RuleError, match="not complete"):
        exchange.answer()


def test_a_head_that_does_not_fit_changes_nothing() -> None:
    exchange = Exchange(REQUESTS["WANT"])
    with pytest.raises(RuleError, match="BatchHead does not fit the Want"):
        exchange.begin(BatchHead(R1, (1, 2)))
    assert exchange.phase is Phase.WAITING


@pytest.mark.parametrize("kind", REQUESTS)
def test_cancelling_is_seen(kind: str) -> None:
    exchange = Exchange(REQUESTS[kind])
    assert not exchange.is_cancelled
    exchange.move(Signal.CANCEL)
    assert exchange.is_cancelled


def test_plain_answers_belong_to_their_requests() -> None:
    page = ANSWERS["GET_HASHES"]
    assert isinstance(page, m.Hashes)
    check_answer(REQUESTS["GET_HASHES"], page)
    with pytest.raises(RuleError, match="Hashes does not fit the Ask"):
        check_answer(REQUESTS["ASK"], page)
