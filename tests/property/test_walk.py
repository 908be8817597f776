"""The closure of any small tree of directories is what unfolding it naively gives."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import LimitError
from p2p.ostree.objects import Checksum, Commit, DirTree, ObjectName, ObjectType
from p2p.ostree.walk import Closure, Limits, walk

Tree = dict[int, tuple[tuple[int, ...], tuple[int, ...]]]


def checksum(number: int) -> Checksum:
    return Checksum(f"{number:064x}")


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Directories 0…n, each naming later ones only; the root is 0."""
    count = draw(st.integers(1, 7))
    files = st.lists(st.integers(100, 104), max_size=3).map(tuple)
    return {
        number: (
            tuple(draw(st.lists(st.integers(number + 1, count - 1), max_size=3)))
            if number + 1 < count
            else (),
            draw(files),
        )
        for number in range(count)
    }


def as_dirtree(entries: tuple[tuple[int, ...], tuple[int, ...]]) -> DirTree:
    subtrees, files = entries
    return DirTree(
        tuple((f"f{index}", checksum(number)) for index, number in enumerate(files)),
        tuple(
            (f"d{index}", checksum(number), checksum(200 + number % 2))
            for index, number in enumerate(subtrees)
        ),
    )


def unfold(tree: Tree, number: int) -> tuple[set[ObjectName], int, int]:
    """Objects, paths and levels below a directory, every path visited."""
    subtrees, files = tree[number]
    names = {ObjectName(checksum(number), ObjectType.DIRTREE)}
    names |= {ObjectName(checksum(file), ObjectType.FILE) for file in files}
    paths = len(files) + len(subtrees)
    levels = 0
    for child in subtrees:
        below, more, deep = unfold(tree, child)
        names |= below
        names.add(ObjectName(checksum(200 + child % 2), ObjectType.DIRMETA))
        paths += more
        levels = max(levels, deep)
    return names, paths, levels + 1


def commit(root: int = 0) -> Commit:
    return Commit(root_dirtree=checksum(root), root_dirmeta=checksum(300), timestamp=0)


@given(trees())
def test_the_walk_finds_what_naive_unfolding_finds(tree: Tree) -> None:
    closure = Closure()
    found = list(
        walk(
            closure,
            closure.add_commit(commit()),
            lambda name: as_dirtree(tree[int(name, 16)]),
        )
    )
    expected, paths, _ = unfold(tree, 0)
    expected.add(ObjectName(checksum(300), ObjectType.DIRMETA))
    assert len(found) == len(set(found))
    assert set(found) == closure.named == expected
    assert closure.check_bounds(commit()) == paths


@given(trees(), st.randoms(use_true_random=False))
def test_directories_may_come_in_any_order(tree: Tree, random: Random) -> None:
    closure = Closure()
    closure.add_commit(commit())
    order = list(tree)
    random.shuffle(order)
    for number in order:
        closure.add_dirtree(checksum(number), as_dirtree(tree[number]))
    expected, paths, _ = unfold(tree, 0)
    assert closure.named >= expected
    assert closure.check_bounds(commit()) == paths
    assert not closure.unread


@given(trees(), trees())
def test_beside_a_baseline_only_what_it_has_is_left_out(old: Tree, new: Tree) -> None:
    """The new commit's directories are numbered from 50, some as in the old one."""
    shared = {n for n in new if n in old and new[n] == old[n] and n > 0}

    def key(number: int) -> int:
        return number if number in shared else number + 50

    both = dict(old)
    both |= {
        key(n): (tuple(map(key, subtrees)), files)
        for n, (subtrees, files) in new.items()
        if n not in shared
    }

    def load(name: Checksum) -> DirTree:
        return as_dirtree(both[int(name, 16)])

    closure = Closure(load_baseline=load)
    start = closure.add_commit(commit(50), commit())
    named = set(walk(closure, start, load))
    meta = ObjectName(checksum(300), ObjectType.DIRMETA)
    expected = unfold(both, 50)[0] | {meta}
    here = unfold(both, 0)[0] | {meta}
    assert named <= expected
    assert named | here >= expected


@given(trees(), st.integers(0, 40), st.integers(1, 7))
def test_bounds_are_kept_to_the_path_and_level(
    tree: Tree, paths: int, depth: int
) -> None:
    closure = Closure(Limits(paths=paths, depth=depth))
    for number, entries in tree.items():
        closure.add_dirtree(checksum(number), as_dirtree(entries))
    _, real_paths, real_levels = unfold(tree, 0)
    try:
        assert closure.check_bounds(commit()) == real_paths
    except LimitError:
        assert real_paths > paths or real_levels > depth
    else:
        assert real_paths <= paths
        assert real_levels <= depth
