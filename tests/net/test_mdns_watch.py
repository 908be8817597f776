"""How often it is asked which services there are."""

from itertools import pairwise

import pytest

from p2p.net.mdns_watch import QUESTIONS, pause_after


@pytest.mark.parametrize("known", [0, 1, 16, 100, 1000])
def test_each_question_comes_at_least_twice_as_late_as_the_one_before(
    known: int,
) -> None:
    # RFC 6762 §5.2: a second first, then at least twice as long each time.
    pauses = [pause_after(asked, known, 0.0) for asked in range(1, QUESTIONS)]
    assert pauses[0] >= 1.0
    assert all(b >= 2 * a for a, b in pairwise(pauses))


def test_a_large_site_is_asked_later_and_less_evenly() -> None:
    def spread(known: int) -> float:
        return pause_after(1, known, 1.0) - pause_after(1, known, 0.0)

    assert pause_after(1, 100, 0.0) > pause_after(1, 5, 1.0)
    assert spread(100) > 1.0 > spread(5)


def test_no_site_is_asked_too_late() -> None:
    assert pause_after(1, 1_000_000, 1.0) <= 5.0
