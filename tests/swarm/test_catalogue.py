"""What is wanted, numbered."""

from random import Random

from p2p.swarm.bits import pack
from p2p.swarm.catalogue import Catalogue
from p2p.swarm.lifecycle import State, Step
from p2p.swarm.tuning import Tuning
from p2p.wire.limits import LARGE_OBJECT_BYTES, UNIT_BYTES
from tests.swarm.rig import BIG, COMMIT, OTHER, dirtrees, files


def make() -> Catalogue:
    return Catalogue(Tuning(), Random(1))


def test_objects_found_together_are_numbered_in_random_order() -> None:
    names = files(100)
    catalogue = make()
    catalogue.want(COMMIT, names)
    assert catalogue.find_all(names) != list(range(100))
    assert sorted(catalogue.find_all(names)) == list(range(100))


def test_an_object_wanted_twice_is_one_item_of_both_commits() -> None:
    catalogue = make()
    first, second, third = files(3)
    catalogue.want(COMMIT, [first, second, first])
    assert catalogue.want(OTHER, [second, third]) == catalogue.members[OTHER]
    assert len(catalogue) == 3
    assert catalogue.want(OTHER, [third]) == 0


def test_what_no_commit_needs_any_more_is_forgotten_and_may_come_back() -> None:
    catalogue = make()
    ours, shared = files(2)
    catalogue.want(COMMIT, [ours, shared])
    catalogue.want(OTHER, [shared])
    assert list(catalogue.names_of(catalogue.unwant(COMMIT))) == [ours]
    assert catalogue.names_of(catalogue.having(State.FORGOTTEN)) == (ours,)
    catalogue.want(COMMIT, [ours])
    assert catalogue.names_of(catalogue.having(State.FORGOTTEN)) == ()
    assert catalogue.unwant(files(1)[0].checksum) == 0


def test_what_was_asked_for_is_forgotten_when_it_returns() -> None:
    catalogue = make()
    (name,) = files(1)
    bits = catalogue.want(COMMIT, [name])
    catalogue.shift(Step.ASK, bits)
    catalogue.unwant(COMMIT)
    assert catalogue.having(State.ASKED) == bits
    catalogue.shift(Step.RETURN, bits)
    assert catalogue.having(State.FORGOTTEN) == bits


def test_a_step_moves_only_what_it_applies_to() -> None:
    catalogue = make()
    bits = catalogue.want(COMMIT, files(4))
    asked = catalogue.shift(Step.ASK, pack([0, 1]))
    assert catalogue.shift(Step.ASK, bits) == bits ^ asked
    assert catalogue.shift(Step.VERIFY, bits) == 0
    assert "4 ASKED" in repr(catalogue)


def test_signed_sizes_apply_whenever_the_object_is_found() -> None:
    catalogue = make()
    (small,) = files(1)
    catalogue.sign_sizes([(small, 10), (BIG, 4 << 20)])
    catalogue.want(COMMIT, [small, BIG])
    item = catalogue.find(BIG)
    assert item is not None
    assert catalogue.large == catalogue.sized == 1 << item
    catalogue.hint_size(item, 5)
    assert catalogue.expect_bytes(item) == 4 << 20
    more = files(2)[1]
    catalogue.want(COMMIT, [more])
    catalogue.sign_sizes([(more, 77)])
    found = catalogue.find(more)
    assert found is not None
    assert catalogue.sizes[found] == 77


def test_a_claimed_size_can_be_contradicted() -> None:
    catalogue = make()
    catalogue.want(COMMIT, [BIG])
    catalogue.hint_size(0, LARGE_OBJECT_BYTES + 1)
    assert catalogue.large == 1
    catalogue.hint_size(0, 100)
    assert catalogue.large == 0
    catalogue.hint_size(0, 101)
    assert catalogue.expect_bytes(0) == 101


def test_unknown_sizes_are_guessed_from_what_came() -> None:
    catalogue = make()
    catalogue.want(COMMIT, [*files(40), *dirtrees(1)])
    tree = catalogue.find(dirtrees(1)[0])
    unknown = catalogue.find(files(1)[0])
    assert tree is not None
    assert unknown is not None
    assert catalogue.expect_bytes(tree) < catalogue.expect_bytes(unknown)
    for name in files(40)[1:]:
        item = catalogue.find(name)
        assert item is not None
        catalogue.learn_size(item, 100)
    catalogue.learn_size(tree, 4000)
    assert catalogue.expect_bytes(unknown) < 12_000
    assert catalogue.expect_sum(1 << unknown | 1 << tree) < 12_000


def test_units_belong_to_the_commits_of_their_object() -> None:
    catalogue = make()
    catalogue.want(COMMIT, [BIG])
    catalogue.want(OTHER, files(1))
    first, count = catalogue.add_units(0, 3 * UNIT_BYTES + 5)
    assert count == 4
    assert [catalogue.sizes[first + k] for k in (0, 3)] == [UNIT_BYTES, 5]
    assert catalogue.members[COMMIT] >> first == 0b1111
    assert catalogue.members[OTHER] >> first == 0
    assert catalogue.object_of(first + 3) == 0
    assert len({catalogue.keys[first + k] for k in range(4)}) == 4


def test_items_are_chosen_by_bucket() -> None:
    catalogue = make()
    assert catalogue.select(b"1" * 256) == 0
    names = files(50)
    catalogue.want(COMMIT, names)
    bucket = int(names[0].checksum[:2], 16)
    chosen = bytes(ord("0") + (k == bucket) for k in range(256))
    assert names[0] in catalogue.names_of(catalogue.select(chosen))
    assert catalogue.select(chosen) == catalogue.buckets[bucket]
