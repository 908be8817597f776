"""Open requests and their limits."""

from dataclasses import replace

import pytest

from p2p.wire import messages as m
from p2p.wire.exchange import Signal
from p2p.wire.ledger import Ledger, cost
from p2p.wire.rule import RuleError
from tests.wire.samples import HELLO, REQUESTS


@pytest.mark.parametrize(
    "kind, names",
    [("WANT", 3), ("ASK", 3), ("GET_HASHES", 3), ("GET_UNIT", 1)],
)
def test_a_request_costs_the_names_it_makes_the_giver_keep(
    kind: str, names: int
) -> None:
    assert cost(REQUESTS[kind]) == names


@pytest.mark.parametrize("kind", REQUESTS)
def test_what_a_request_cost_is_given_back_when_it_ends(kind: str) -> None:
    ledger = Ledger()
    ledger.limits = HELLO
    for number in range(1, 10_000):
        request = replace(REQUESTS[kind], request=m.RequestId(number))
        ledger.open(request)
        exchange = ledger.find(number)
        assert not ledger.close_if_done(exchange)
        exchange.move(Signal.FINAL)
        assert ledger.close_if_done(exchange)
    assert len(ledger) == 0
    assert ledger.last == 9999


def test_nothing_may_be_asked_before_the_limits_are_known() -> None:
    with pytest.raises(RuleError, match="before HELLO"):
        Ledger().open(REQUESTS["ASK"])


def test_after_clear_all_is_free_but_ids() -> None:
    ledger = Ledger()
    ledger.limits = HELLO
    for number, request in enumerate(REQUESTS.values(), 1):
        if not isinstance(request, m.GetCommit):
            ledger.open(replace(request, request=m.RequestId(number)))
    assert list(ledger) == [1, 3, 4, 5, 6, 7]
    ledger.clear()
    assert list(ledger) == []
    assert ledger.obstacle(REQUESTS["GET_COMMIT"]) is None
    with pytest.raises(RuleError, match="after 7"):
        ledger.open(REQUESTS["ASK"])
