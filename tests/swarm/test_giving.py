"""What a giver gives once: to whom, for how long, and when it gives it again."""

from p2p.ostree.objects import ObjectName
from p2p.swarm import action as a
from p2p.swarm.giving import WHOLE, Giving, Thing
from p2p.wire.limits import UNIT_BYTES
from tests.swarm.rig import ANNA, BERT, BIG, CLEO, files


def things(count: int) -> list[Thing]:
    return [(name, WHOLE) for name in files(count)]


THING = things(1)[0]


def given(giving: Giving, thing: Thing = THING, seconds: float = 0.1) -> float:
    """Give something to Anna, and return the time when she has it."""
    assert giving.claim(thing, ANNA, 0.0) is None
    giving.sent([thing], ANNA, UNIT_BYTES, seconds)
    return seconds


def test_the_second_taker_hears_who_got_it() -> None:
    giving = Giving()
    now = given(giving)
    assert giving.claim(THING, BERT, now) == ANNA
    assert giving.claim(THING, CLEO, now + 1) == ANNA


def test_who_got_it_may_ask_again() -> None:
    giving = Giving()
    now = given(giving)
    assert giving.claim(THING, ANNA, now) is None
    assert giving.claim(THING, BERT, now) == ANNA


def test_each_unit_of_an_object_is_given_by_itself() -> None:
    giving = Giving()
    assert giving.claim((BIG, 0), ANNA, 0.0) is None
    assert giving.claim((BIG, 1), BERT, 0.0) is None
    assert giving.claim((BIG, 1), ANNA, 0.0) == BERT


def test_what_was_given_to_one_that_left_is_given_again() -> None:
    giving = Giving()
    now = given(giving)
    giving.left(ANNA)
    assert giving.claim(THING, BERT, now) is None


def test_what_was_cancelled_before_it_was_given_is_given_to_another() -> None:
    giving = Giving()
    assert giving.claim(THING, ANNA, 0.0) is None
    giving.withdraw([THING], BERT)
    assert giving.claim(THING, BERT, 0.1) == ANNA
    giving.withdraw([THING], ANNA)
    assert giving.claim(THING, BERT, 0.2) is None


def test_a_slow_link_gives_things_longer_to_spread() -> None:
    fast, slow = Giving(), Giving()
    given(fast)
    given(slow, seconds=1.0)
    assert fast.claim(THING, BERT, 0.1 + 3) is None
    assert slow.claim(THING, BERT, 1.0 + 3) == ANNA
    assert slow.claim(THING, BERT, 1.0 + 17) is None


def test_small_answers_tell_nothing_about_the_link() -> None:
    giving = Giving()
    giving.claim(THING, ANNA, 0.0)
    before = giving.hold
    giving.sent([THING], ANNA, 1000, 60.0)
    assert giving.hold == before


def test_nobody_holds_a_thing_back_for_long() -> None:
    giving = Giving()
    given(giving, seconds=1000.0)
    assert giving.claim(THING, BERT, 1031.0) is None


def test_what_came_from_a_neighbour_is_given_freely() -> None:
    giving = Giving()
    one, two = files(2)
    giving.note(a.Accept((one,), BERT))
    giving.note(a.AcceptUnit(BIG, 3))
    giving.note(a.Assemble(two))
    giving.note(a.DiscardUnits(two))
    for thing in ((one, WHOLE), (BIG, 3), (two, WHOLE)):
        assert giving.claim(thing, ANNA, 0.0) is None
        assert giving.claim(thing, CLEO, 0.0) is None


def test_what_came_from_the_origin_is_given_once() -> None:
    giving = Giving()
    (one,) = files(1)
    giving.note(a.Accept((one,), None))
    assert giving.claim((one, WHOLE), ANNA, 0.0) is None
    assert giving.claim((one, WHOLE), CLEO, 0.0) == ANNA


def test_who_keeps_what_it_gets_holds_up_nobody_for_long() -> None:
    giving = Giving()
    taken = things(100)
    for thing in taken:
        assert giving.claim(thing, ANNA, 0.0) is None
    late = giving.hold + 0.1
    refused = [thing for thing in taken if giving.claim(thing, BERT, late) is not None]
    assert not refused
    more = (ObjectName(BIG.checksum, BIG.type), 7)
    assert giving.claim(more, ANNA, late) is None
    assert giving.claim(more, BERT, late) is None, "what a hoarder gets counts no more"


def test_once_it_is_found_out_its_other_things_are_free_at_once() -> None:
    giving = Giving()
    early, late = things(100)[:50], things(100)[50:]
    for thing in early:
        giving.claim(thing, ANNA, 0.0)
    at = giving.hold + 0.1
    for thing in late:
        giving.claim(thing, ANNA, at - 0.5)
    assert giving.claim(late[0], BERT, at) == ANNA
    for thing in early:
        giving.claim(thing, BERT, at)
    assert giving.claim(late[0], BERT, at) is None


def test_who_comes_long_after_blames_nobody() -> None:
    giving = Giving()
    for thing in things(100):
        giving.claim(thing, ANNA, 0.0)
    for thing in things(100):
        assert giving.claim(thing, BERT, 1000.0) is None
    assert giving.claim((BIG, 0), ANNA, 1000.0) is None
    assert giving.claim((BIG, 0), BERT, 1000.0) == ANNA


def test_the_ledger_forgets_what_is_long_past() -> None:
    giving = Giving()
    for thing in things(100):
        giving.claim(thing, ANNA, 0.0)
    giving.claim((BIG, 0), ANNA, 1000.0)
    assert "1 things" in repr(giving)


def test_what_came_from_neighbours_is_remembered_up_to_a_bound() -> None:
    giving = Giving()
    (first,) = files(1)
    giving.note(a.Accept((first,), BERT))
    for unit in range(1 << 18):
        giving.note(a.AcceptUnit(BIG, unit))
    assert giving.claim((first, WHOLE), ANNA, 0.0) is None
    assert giving.claim((first, WHOLE), CLEO, 0.0) == ANNA
