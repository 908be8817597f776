"""Which objects a commit needs, and how much it may name."""

from collections.abc import Iterator

import pytest

from p2p.errors import FormatError, LimitError, ObjectNotFoundError
from p2p.ostree.objects import Checksum, Commit, DirTree, ObjectName, ObjectType
from p2p.ostree.walk import Closure, Limits, walk

META = Checksum("f" * 64)


def checksum(number: int) -> Checksum:
    return Checksum(f"{number:064x}")


def tree(number: int) -> ObjectName:
    return ObjectName(checksum(number), ObjectType.DIRTREE)


def file(number: int) -> ObjectName:
    return ObjectName(checksum(number), ObjectType.FILE)


def meta(of: Checksum = META) -> ObjectName:
    return ObjectName(of, ObjectType.DIRMETA)


def directory(*subtrees: int, files: tuple[int, ...] = ()) -> DirTree:
    return DirTree(
        tuple((f"f{index}", checksum(number)) for index, number in enumerate(files)),
        tuple((f"d{i:06}", checksum(child), META) for i, child in enumerate(subtrees)),
    )


def commit(root: int) -> Commit:
    return Commit(root_dirtree=checksum(root), root_dirmeta=META, timestamp=0)


def closure_of(trees: dict[int, DirTree], **limits: int) -> Closure:
    closure = Closure(Limits(**limits))
    for number, entries in trees.items():
        closure.add_dirtree(checksum(number), entries)
    return closure


def test_a_commit_names_its_root_directory_and_that_ones_metadata() -> None:
    closure = Closure()
    assert closure.add_commit(commit(1)) == [tree(1), meta()]
    assert closure.unread == {checksum(1)}
    assert closure.named == {tree(1), meta()}


def test_a_directory_names_each_object_once_in_the_order_of_its_entries() -> None:
    closure = Closure()
    closure.add_commit(commit(1))
    entries = directory(2, 3, 2, files=(7, 8, 7))
    fresh = closure.add_dirtree(checksum(1), entries)
    assert fresh == [tree(2), tree(3), file(7), file(8)]
    assert closure.unread == {checksum(2), checksum(3)}


def test_a_directory_read_again_names_nothing_new() -> None:
    closure = Closure()
    closure.add_dirtree(checksum(1), directory(files=(7,)))
    assert closure.add_dirtree(checksum(1), directory(files=(7,))) == []


def test_a_directory_known_from_one_commit_is_not_read_for_another() -> None:
    closure = Closure()
    closure.add_commit(commit(1))
    closure.add_dirtree(checksum(1), directory(files=(7,)))
    assert closure.add_commit(commit(1)) == []
    assert not closure.unread


def test_file_and_directory_of_one_checksum_are_two_objects() -> None:
    closure = Closure()
    fresh = closure.add_dirtree(checksum(1), directory(2, files=(2,)))
    assert fresh == [tree(2), meta(), file(2)]


def test_a_walk_reads_every_directory_once() -> None:
    trees = {1: directory(2, 3), 2: directory(3, files=(7,)), 3: directory(files=(7,))}
    read: list[int] = []

    def load(name: Checksum) -> DirTree:
        read.append(int(name, 16))
        return trees[read[-1]]

    closure = Closure()
    names = list(walk(closure, closure.add_commit(commit(1)), load))
    assert sorted(names) == sorted([tree(1), meta(), tree(2), tree(3), file(7)])
    assert sorted(read) == [1, 2, 3]
    assert not closure.unread


def test_a_walk_starts_with_what_it_is_given_in_that_order() -> None:
    def load(name: Checksum) -> DirTree:
        raise AssertionError(name)

    assert list(walk(Closure(), [file(1), meta(), file(2)], load)) == [
        file(1),
        meta(),
        file(2),
    ]


def test_an_error_of_reading_a_directory_comes_through() -> None:
    def load(name: Checksum) -> DirTree:
        raise ObjectNotFoundError(name)

    closure = Closure()
    names: Iterator[ObjectName] = walk(closure, closure.add_commit(commit(1)), load)
    assert next(names) == tree(1)
    with pytest.raises(ObjectNotFoundError):
        next(names)


def test_more_objects_than_allowed_are_refused() -> None:
    closure = Closure(Limits(objects=5))
    closure.add_commit(commit(1))
    closure.add_dirtree(checksum(1), directory(files=(7, 8, 9)))
    with pytest.raises(LimitError, match="more than 5 objects"):
        closure.add_dirtree(checksum(2), directory(files=(7, 8, 9, 10)))


def test_paths_are_counted_as_often_as_they_unfold() -> None:
    closure = closure_of({1: directory(2, 2, files=(7,)), 2: directory(files=(7, 8))})
    # d0, d1, f0 and twice f0, f1.
    assert closure.check_bounds(commit(1)) == 7


def test_an_empty_commit_has_no_paths() -> None:
    assert closure_of({1: directory()}).check_bounds(commit(1)) == 0


@pytest.mark.parametrize("paths, refused", [(7, False), (6, True)])
def test_the_bound_of_paths_is_exact(paths: int, *, refused: bool) -> None:
    trees = {1: directory(2, 2, files=(7,)), 2: directory(files=(7, 8))}
    closure = closure_of(trees, paths=paths)
    if not refused:
        closure.check_bounds(commit(1))
        return
    with pytest.raises(LimitError, match="6 paths"):
        closure.check_bounds(commit(1))


@pytest.mark.parametrize("depth, refused", [(4, False), (3, True)])
def test_the_bound_of_depth_is_exact(depth: int, *, refused: bool) -> None:
    trees = {1: directory(2), 2: directory(3), 3: directory(4), 4: directory()}
    closure = closure_of(trees, depth=depth)
    if not refused:
        closure.check_bounds(commit(1))
        return
    with pytest.raises(LimitError, match="3 levels"):
        closure.check_bounds(commit(1))


def test_depth_counts_through_a_directory_that_was_measured_before() -> None:
    # 5 is first met at the second level, and again at the fourth.
    trees = {
        1: directory(5, 2),
        2: directory(3),
        3: directory(5),
        5: directory(6),
        6: directory(),
    }
    assert closure_of(trees, depth=5).check_bounds(commit(1)) == 6
    with pytest.raises(LimitError):
        closure_of(trees, depth=4).check_bounds(commit(1))


def test_many_subdirectories_are_no_depth() -> None:
    wide = range(10, 5010)
    trees = {1: directory(*wide), 2: directory()}
    trees |= {number: directory(2) for number in wide}
    assert closure_of(trees, depth=3).check_bounds(commit(1)) == 10_000


def test_a_circle_is_refused_as_too_deep() -> None:
    # No checksums form one; a reader that does not check them could be shown it.
    with pytest.raises(LimitError, match="levels"):
        closure_of({1: directory(2), 2: directory(1)}).check_bounds(commit(1))


def test_a_directory_bomb_is_refused_without_unfolding_it() -> None:
    # 31 objects that name 2^28 directories.
    levels = {number: directory(number + 1, number + 1) for number in range(1, 29)}
    closure = closure_of({**levels, 29: directory()})
    with pytest.raises(LimitError, match="20000000 paths"):
        closure.check_bounds(commit(1))


def test_one_directory_named_a_hundred_thousand_times_is_measured_once() -> None:
    wide = 100_000
    closure = closure_of({1: directory(*[2] * wide), 2: directory(*[3] * wide)})
    closure.add_dirtree(checksum(3), directory())
    with pytest.raises(LimitError, match="paths"):
        closure.check_bounds(commit(1))


def test_the_bounds_of_a_commit_look_at_its_own_directories_only() -> None:
    closure = closure_of({1: directory(files=(7,)), 2: directory(3)}, paths=1)
    assert closure.check_bounds(commit(1)) == 1


# -- beside a baseline -----------------------------------------------------------


def beside(trees: dict[int, DirTree], *, old: int, new: int) -> list[ObjectName]:
    """What a walk of the commit of directory `new` names beside that of `old`."""
    closure = Closure(load_baseline=lambda name: trees[int(name, 16)])
    start = closure.add_commit(commit(new), commit(old))
    return list(walk(closure, start, lambda name: trees[int(name, 16)]))


def test_what_is_in_the_same_place_of_a_baseline_is_passed_over() -> None:
    trees = {
        1: directory(2, 3, files=(7, 8)),
        2: directory(files=(9,)),
        3: directory(files=(10,)),
        4: directory(2, 5, files=(7, 11)),
        5: directory(files=(10, 12)),
    }
    # d0 is the same directory, d1 has one file more, and so has the root.
    assert sorted(beside(trees, old=1, new=4)) == sorted(
        [tree(4), meta(), tree(5), file(11), file(12)]
    )


def test_a_directory_that_moved_is_walked() -> None:
    trees = {
        1: directory(2),
        2: directory(files=(9,)),
        3: directory(5, 2),
        5: directory(),
    }
    names = beside(trees, old=1, new=3)
    assert {tree(2), file(9)} <= set(names)


def test_metadata_that_the_baseline_lacks_is_named() -> None:
    other = Checksum("e" * 64)
    trees = {
        1: directory(2),
        2: directory(),
        3: DirTree((), (("d000000", checksum(2), other),)),
    }
    names = beside(trees, old=1, new=3)
    assert meta(other) in names
    assert tree(2) not in names


def test_a_baseline_whose_directory_is_lost_saves_nothing() -> None:
    trees = {1: directory(2), 2: directory(files=(9,)), 3: directory(2, files=(8,))}
    closure = Closure(load_baseline=lambda _: DirTree())
    start = closure.add_commit(commit(3), commit(1))
    names = list(walk(closure, start, lambda name: trees[int(name, 16)]))
    assert {tree(2), file(9), file(8)} <= set(names)


def test_a_directory_that_is_passed_over_counts_as_one_path() -> None:
    trees = {1: directory(2), 2: directory(files=(8, 9)), 3: directory(2, files=(7,))}
    closure = Closure(
        Limits(paths=2, depth=1), load_baseline=lambda name: trees[int(name, 16)]
    )
    start = closure.add_commit(commit(3), commit(1))
    for _ in walk(closure, start, lambda name: trees[int(name, 16)]):
        pass
    assert closure.check_bounds(commit(3)) == 2


def test_without_a_way_to_read_it_a_baseline_saves_nothing() -> None:
    trees = {1: directory(2), 2: directory(files=(9,)), 3: directory(2)}
    closure = Closure()
    start = closure.add_commit(commit(3), commit(1))
    names = list(walk(closure, start, lambda name: trees[int(name, 16)]))
    assert {tree(2), file(9)} <= set(names)


def test_limits_are_errors_of_the_data() -> None:
    assert issubclass(LimitError, FormatError)
