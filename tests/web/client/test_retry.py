"""What is tried again, when and where."""

from random import Random

import pytest

from p2p.errors import (
    ConnectError,
    CredentialsError,
    Error,
    FormatError,
    IntegrityError,
    LimitError,
    OriginError,
    OriginNotFoundError,
    TransportClosedError,
    TransportTimeoutError,
)
from p2p.web.client.failure import TlsError
from p2p.web.client.mirrors import Mirror
from p2p.web.client.request import DEFAULT_ACCESS
from p2p.web.client.retry import Course, Retry, is_transient

RETRY = Retry(random=Random(1))
MIRRORS = [
    Mirror(f"http://{name}", access=DEFAULT_ACCESS, credentials=False) for name in "abc"
]
BUSY = OriginError("busy", status=503)
ABSENT = OriginNotFoundError("absent", status=404)


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("x"),
        TransportTimeoutError("x"),
        TransportClosedError("x"),
        FormatError("x"),
        IntegrityError("x", expected="a", got="b"),
        *(OriginError("x", status=s) for s in (408, 429, 500, 502, 503, 504, 599)),
    ],
)
def test_what_may_pass_is_tried_again(error: Error) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        TlsError("x"),
        LimitError("x"),
        CredentialsError("x", status=401),
        OriginError("x"),
        *(OriginError("x", status=s) for s in (302, 400, 404, 409, 501, 505)),
    ],
)
def test_what_will_stay_is_not_tried_again(error: Error) -> None:
    assert not is_transient(error)


def test_delays_grow_are_spread_from_nothing_and_end_at_a_minute() -> None:
    for tried, ceiling in [(1, 1), (2, 2), (3, 4), (7, 60), (500, 60)]:
        delays = [RETRY.delay(tried) for _ in range(200)]
        assert 0 <= min(delays) < ceiling / 10
        assert ceiling * 0.9 < max(delays) <= ceiling


def test_one_mirror_is_tried_five_times() -> None:
    course = Course(lambda: MIRRORS[:1], RETRY)
    for _ in range(4):
        assert not course.next_mirror(BUSY)
        assert course.next_try(None) is not None
        assert course.mirror is MIRRORS[0]
    assert not course.next_mirror(BUSY)
    assert course.next_try(None) is None
    assert str(course.final_error()) == "busy (tried 5 times)"


def test_what_is_not_there_is_asked_for_once_at_every_mirror() -> None:
    course = Course(lambda: MIRRORS, RETRY)
    assert course.next_mirror(ABSENT)
    assert course.mirror is MIRRORS[1]
    assert course.next_mirror(ABSENT)
    assert course.mirror is MIRRORS[2]
    assert not course.next_mirror(ABSENT)
    assert course.next_try(None) is None
    assert str(course.final_error()) == "absent"


def test_one_busy_mirror_among_those_without_the_file_is_worth_another_try() -> None:
    course = Course(lambda: MIRRORS, RETRY)
    course.next_mirror(ABSENT)
    course.next_mirror(OriginError("overloaded", status=503))
    course.next_mirror(OriginNotFoundError("absent too", status=404))
    assert course.next_try(None) is not None
    assert course.mirror is MIRRORS[0]
    assert str(course.final_error()) == "overloaded"


def test_the_mirror_that_was_asked_is_not_asked_twice_in_a_try() -> None:
    course = Course(lambda: MIRRORS, RETRY, first=MIRRORS[1])
    seen = [course.mirror]
    while course.next_mirror(ABSENT):
        seen.append(course.mirror)
    assert seen == [MIRRORS[1], MIRRORS[0], MIRRORS[2]]


@pytest.mark.parametrize("asked, granted", [(0, 0), (7, 7), (86400, 600)])
def test_a_wait_that_the_server_asks_for_is_granted_up_to_ten_minutes(
    asked: float, granted: float
) -> None:
    course = Course(lambda: MIRRORS[:1], RETRY)
    course.next_mirror(BUSY)
    assert course.next_try(asked) == granted


def test_there_is_nothing_to_report_before_something_failed() -> None:
    with pytest.raises(AssertionError):
        Course(lambda: MIRRORS, RETRY).final_error()
