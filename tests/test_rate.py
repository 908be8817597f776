"""Rates as they are written, and the bucket that keeps to one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import ConfigError
from p2p.rate import BURST_SECONDS, Bucket, format_rate, on_wire, parse_rate


@pytest.mark.parametrize(
    "text, rate",
    [("8bit", 1), ("500kbit", 62_500), ("10Mbit", 1.25e6), ("1.5 gbit", 187.5e6)],
)
def test_rates_are_written_as_tc_has_them(text: str, rate: float) -> None:
    assert parse_rate(text, where="--rate") == rate
    assert parse_rate(format_rate(rate), where="--rate") == rate


@pytest.mark.parametrize("text", ["", "0mbit", "10", "-1mbit", "10mbps", "1e9bit"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--rate"):
        parse_rate(text, where="--rate")


def test_no_rate_is_written_as_unlimited() -> None:
    assert format_rate(None) == "unlimited"
    assert repr(Bucket(1.25e6)) == "<Bucket 10mbit>"


def test_packets_of_ethernet_carry_their_headers() -> None:
    assert on_wire(0) == 0
    assert on_wire(1448) == 1514
    assert on_wire(1449) == 1449 + 2 * 66


def test_a_bucket_without_a_rate_lets_everything_pass() -> None:
    bucket = Bucket()
    bucket.take(1 << 40, 10.0)
    assert bucket.due(10.0) == 10.0


@given(
    rate=st.floats(1e3, 1e9),
    times=st.lists(st.floats(BURST_SECONDS / 2, 1), min_size=1, max_size=50),
    late=st.floats(0, BURST_SECONDS / 2),
)
def test_who_waits_until_due_keeps_the_rate_even_if_always_late(
    rate: float, times: list[float], late: float
) -> None:
    bucket, now = Bucket(rate), 100.0
    sizes = [int(rate * time) for time in times]
    for size in sizes:
        now = bucket.due(now) + late
        bucket.take(size, now)
    took = bucket.due(now) - 100.0
    assert took == pytest.approx(sum(sizes) / rate, abs=2 * BURST_SECONDS)


def test_what_is_owed_is_paid_at_the_new_rate() -> None:
    bucket = Bucket(1000.0)
    bucket.take(10_000, 0.0)
    assert bucket.due(0.0) == pytest.approx(10.0, abs=2 * BURST_SECONDS)
    bucket.change(100_000.0, 0.0)
    assert bucket.due(0.0) == pytest.approx(0.1, abs=2 * BURST_SECONDS)
    bucket.change(None, 0.0)
    assert bucket.due(0.0) == 0.0
    bucket.change(1000.0, 0.0)
    assert bucket.due(0.0) == 0.0


def test_a_pause_saves_up_no_more_than_a_moment() -> None:
    bucket = Bucket(1000.0)
    bucket.take(1000, 3600.0)
    assert bucket.due(3600.0) == pytest.approx(3601.0 - BURST_SECONDS)
