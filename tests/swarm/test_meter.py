"""Rates are measured only while something is due."""

import pytest

from p2p.swarm.meter import Meter


def test_idle_time_does_not_make_a_giver_slow() -> None:
    meter = Meter()
    meter.start(0.0)
    meter.add(1000, 1.0)
    meter.stop(1.0)
    meter.start(100.0)
    meter.start(100.5)
    meter.add(1000, 101.0)
    assert meter.rate() == pytest.approx(1000)


def test_what_comes_unexpectedly_is_not_counted() -> None:
    meter = Meter()
    meter.add(1000, 1.0)
    assert meter.rate() == 0


def test_recent_time_weighs_most() -> None:
    meter = Meter()
    meter.start(0.0)
    meter.add(10_000, 1.0)
    for second in range(2, 8):
        meter.add(100, float(second))
    assert 100 < meter.rate() < 400
