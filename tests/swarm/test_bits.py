"""Sets of numbers as integers."""

from p2p.swarm.bits import around, each, fewest, less, nth, pack, span, tally


def test_a_set_gives_back_its_members_in_order() -> None:
    members = [3, 0, 5000, 64, 4999, 1_000_000]
    assert list(each(pack(members))) == sorted(members)
    assert list(each(pack([]))) == []


def test_near_and_far_members_make_the_same_set() -> None:
    assert pack(range(10, 3000)) == span(10, 2990)
    assert pack([7, 9]) == 1 << 7 | 1 << 9


def test_less_takes_away_only_what_is_there() -> None:
    assert less(pack([1, 2, 3]), pack([2, 9])) == pack([1, 3])


def test_around_starts_anywhere_and_visits_all_once() -> None:
    bits = pack([2, 5, 9])
    assert list(around(bits, 5)) == [5, 9, 2]
    assert list(around(bits, 100)) == [2, 5, 9]


def test_members_are_found_by_their_rank() -> None:
    members = sorted({0, 1, 5, 63, 64, 1000, 70_000})
    assert [nth(pack(members), k) for k in range(len(members))] == members
    assert nth(pack([9]), 0) == 9


def test_the_rarest_are_those_fewest_sets_have() -> None:
    sets = [pack([1, 2, 3, 4]), pack([2, 3, 4]), pack([3, 4]), pack([4]), 0]
    slices = tally(sets)
    everything = pack([1, 2, 3, 4])
    assert fewest(everything, slices) == pack([1])
    assert fewest(pack([2, 3, 4]), slices) == pack([2])
    assert fewest(pack([3, 4]), slices) == pack([3])
    assert fewest(everything | 1, slices) == 1
    assert fewest(everything, tally([])) == everything
