from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from p2p.net.admission import Admission, ListenLimits, Rates, Refusal

GENEROUS = ListenLimits(per_second=1000, burst=1000)


def test_a_burst_passes_and_then_the_rate_counts() -> None:
    rates: Rates[str] = Rates(per_second=2, burst=3, keys=10)
    assert [rates.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert not rates.take("a", 0.4)
    assert rates.take("a", 0.5)
    assert not rates.take("a", 0.6)
    assert rates.take("b", 0.6)


def test_a_long_rest_saves_up_no_more_than_the_burst() -> None:
    rates: Rates[str] = Rates(per_second=2, burst=3, keys=10)
    for _ in range(3):
        rates.take("a", 0.0)
    assert [rates.take("a", 1e6) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rates: Rates[str] = Rates(per_second=1, burst=1, keys=10)
    assert rates.take("a", 100.0)
    assert not rates.take("a", 50.0)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1e6))))
def test_only_so_many_keys_are_remembered(taken: list[tuple[int, float]]) -> None:
    rates: Rates[int] = Rates(per_second=1, burst=1, keys=5)
    for key, now in taken:
        rates.take(key, now)
        assert len(rates._buckets) <= 5


def test_the_key_that_was_quiet_longest_is_forgotten() -> None:
    rates: Rates[str] = Rates(per_second=0, burst=1, keys=2)
    assert rates.take("a", 0)
    assert rates.take("b", 0)
    assert not rates.take("a", 0)
    assert rates.take("c", 0)  # b is forgotten
    assert not rates.take("a", 0)
    assert rates.take("b", 0)


def test_one_address_cannot_knock_for_ever() -> None:
    admission = Admission(ListenLimits(per_second=1, burst=2))
    assert admission.knock("a", 0) is None
    assert admission.knock("a", 0) is None
    assert admission.knock("a", 0) is Refusal.RATE
    assert admission.knock("b", 0) is None


def test_one_address_may_have_only_so_many_handshakes() -> None:
    admission = Admission(ListenLimits(half_open_each=2, burst=99))
    admission.begin(1, "a", lambda: None)
    admission.begin(2, "a", lambda: None)
    assert admission.knock("a", 0) is Refusal.HALF_OPEN
    assert admission.knock("b", 0) is None
    admission.end(1)
    admission.end(1)
    assert admission.knock("a", 0) is None


def test_the_oldest_handshake_makes_room_for_a_new_one() -> None:
    admission = Admission(ListenLimits(half_open=2, half_open_each=9))
    evicted: list[int] = []
    for n in range(4):
        admission.begin(n, f"address {n}", partial(evicted.append, n))
    assert evicted == [0, 1]
    assert admission.evicted == 2
    assert not admission._at_door["address 0"]


def test_connections_are_counted_by_address_and_in_all() -> None:
    admission = Admission(ListenLimits(contacts=3, contacts_each=2, burst=99))
    admission.enter("a")
    admission.enter("a")
    assert admission.knock("a", 0) is Refusal.CONTACTS
    assert admission.knock("b", 0) is None
    admission.enter("b")
    assert admission.knock("c", 0) is Refusal.CONTACTS
    admission.leave("a")
    assert admission.knock("c", 0) is None
    admission.leave("a")
    admission.leave("b")
    assert not admission._inside
