import pytest

from p2p.errors import BindingError, FutureError, RevokedError, RollbackError
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import Checksum, Commit
from p2p.trust.policy import (
    MAX_AHEAD_SECONDS,
    Clock,
    ClockCheck,
    Head,
    Source,
    check_bindings,
    check_clock,
    check_not_older,
    check_not_revoked,
    format_time,
)
from tests.trust.samples import TIME, make_commit

A, B = Checksum("a" * 64), Checksum("b" * 64)
ORIGIN, NEIGHBOUR = Source.ORIGIN, Source.NEIGHBOUR
BOTH = pytest.mark.parametrize("source", Source)
COLLECTION = "org.example.Os"


def commit(
    refs: tuple[str, ...] | None = ("main",), collection: str | None = None
) -> Commit:
    return Commit.parse(make_commit(refs=refs, collection=collection))


# -- bindings --------------------------------------------------------------------------


@BOTH
def test_a_commit_bound_to_the_ref_passes(source: Source) -> None:
    check_bindings(
        commit(("next", "main")), ref="main", collection_id=None, source=source
    )


@BOTH
def test_a_commit_bound_to_another_ref_is_refused_and_both_are_named(
    source: Source,
) -> None:
    with pytest.raises(BindingError, match="for 'next', not for 'main'"):
        check_bindings(commit(("next",)), ref="main", collection_id=None, source=source)


def test_without_a_binding_only_the_origin_is_believed() -> None:
    unbound = commit(None)
    check_bindings(unbound, ref="main", collection_id=None, source=ORIGIN)
    with pytest.raises(BindingError, match="neighbour cannot vouch for 'main'"):
        check_bindings(unbound, ref="main", collection_id=None, source=NEIGHBOUR)


@BOTH
def test_a_commit_asked_for_by_checksum_needs_no_ref(source: Source) -> None:
    check_bindings(commit(None), ref=None, collection_id=None, source=source)
    check_bindings(commit(("other",)), ref=None, collection_id=None, source=source)


@BOTH
def test_a_binding_to_no_ref_at_all_binds_to_none(source: Source) -> None:
    with pytest.raises(BindingError, match="for no ref, not for 'main'"):
        check_bindings(commit(()), ref="main", collection_id=None, source=source)


@BOTH
def test_the_collection_must_be_the_remotes(source: Source) -> None:
    bound = commit(("main",), COLLECTION)
    check_bindings(bound, ref="main", collection_id=COLLECTION, source=source)
    check_bindings(bound, ref="main", collection_id=None, source=source)
    with pytest.raises(BindingError, match=r"for collection 'org.example.Os'; the"):
        check_bindings(bound, ref="main", collection_id="org.other.Os", source=source)
    with pytest.raises(BindingError, match="names no collection"):
        check_bindings(commit(), ref="main", collection_id=COLLECTION, source=source)


def test_a_remote_with_a_collection_demands_a_ref_binding() -> None:
    with pytest.raises(BindingError, match="remote has a collection id"):
        check_bindings(
            commit(None, COLLECTION), ref=None, collection_id=COLLECTION, source=ORIGIN
        )


def test_a_binding_of_another_type_is_none() -> None:
    bound = Commit(
        root_dirtree=A,
        root_dirmeta=B,
        timestamp=TIME,
        metadata=(("ostree.ref-binding", Variant("s", "main")),),
    )
    with pytest.raises(BindingError):
        check_bindings(bound, ref="main", collection_id=None, source=NEIGHBOUR)


def test_a_hostile_list_of_refs_makes_a_short_harmless_message() -> None:
    hostile = commit(tuple(f"\x1b[2J{n}" + "x" * 500 for n in range(1000)))
    with pytest.raises(BindingError, match="and 995 more") as caught:
        check_bindings(hostile, ref="main", collection_id=None, source=ORIGIN)
    message = str(caught.value)
    assert len(message) < 700
    assert "\x1b" not in message


# -- age -------------------------------------------------------------------------------


@BOTH
def test_anything_may_follow_nothing(source: Source) -> None:
    check_not_older(Head(A, 0), None, source)


@BOTH
def test_a_newer_commit_may_follow(source: Source) -> None:
    check_not_older(Head(A, TIME + 1), Head(B, TIME), source)


@BOTH
def test_the_same_commit_may_follow_itself(source: Source) -> None:
    check_not_older(Head(A, TIME), Head(A, TIME), source)


@BOTH
def test_an_older_commit_is_a_rollback(source: Source) -> None:
    with pytest.raises(RollbackError, match=r"2023-11-14 .* is older than b+ of 2023"):
        check_not_older(Head(A, TIME - 1), Head(B, TIME), source)


def test_of_two_commits_of_one_second_only_the_origins_may_follow() -> None:
    check_not_older(Head(A, TIME), Head(B, TIME), ORIGIN)
    with pytest.raises(RollbackError, match="as old as"):
        check_not_older(Head(A, TIME), Head(B, TIME), NEIGHBOUR)


# -- clock -----------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-TIME, 0, MAX_AHEAD_SECONDS])
def test_up_to_a_day_ahead_of_a_trusted_clock_passes(ahead: int) -> None:
    clock = Clock(now=float(TIME), trusted=True, floor=TIME)
    assert check_clock(TIME + ahead, clock) is ClockCheck.PASSED


@pytest.mark.parametrize("timestamp", [TIME + MAX_AHEAD_SECONDS + 1, 2**63, 2**64 - 1])
def test_further_ahead_is_from_the_future(timestamp: int) -> None:
    with pytest.raises(FutureError, match="more than a day ahead of this device's"):
        check_clock(timestamp, Clock(now=float(TIME), trusted=True))


@pytest.mark.parametrize("timestamp", [0, TIME * 2, 2**64 - 1])
def test_a_clock_that_proves_nothing_skips_the_check_and_says_so(
    timestamp: int,
) -> None:
    untrusted = Clock(now=float(TIME), trusted=False)
    behind = Clock(now=0.0, trusted=True, floor=TIME)
    assert check_clock(timestamp, untrusted) is ClockCheck.CLOCK_UNTRUSTED
    assert check_clock(timestamp, behind) is ClockCheck.CLOCK_BEHIND


@pytest.mark.parametrize(
    "timestamp, text",
    [
        (0, "1970-01-01 00:00:00+00:00"),
        (TIME, "2023-11-14 22:13:20+00:00"),
        (253402300799, "9999-12-31 23:59:59+00:00"),
        (253402300800, "253402300800 seconds after 1970"),
        (2**64 - 1, "18446744073709551615 seconds after 1970"),
        (-1, "-1 seconds after 1970"),
    ],
)
def test_any_timestamp_can_be_printed(timestamp: int, text: str) -> None:
    assert format_time(timestamp) == text


# -- withdrawn commits -----------------------------------------------------------------


def test_a_withdrawn_commit_is_revoked() -> None:
    check_not_revoked(A, frozenset({B}))
    with pytest.raises(RevokedError, match=r"a{64} was withdrawn"):
        check_not_revoked(A, frozenset({A, B}))
