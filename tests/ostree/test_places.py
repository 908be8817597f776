"""The way back from an object to the paths it has in commits."""

import pytest

from p2p.ostree import places as finding
from p2p.ostree.objects import Checksum, Commit, DirTree, ObjectName, ObjectType
from p2p.ostree.places import Place, find_places


def key(letter: str) -> Checksum:
    return Checksum(letter * 64)


META, FILE, OTHER = key("a"), key("b"), key("c")
LEAF, MIDDLE, ROOT, GONE = key("1"), key("2"), key("3"), key("4")
FIRST, SECOND = key("e"), key("f")

TREES = {
    LEAF: DirTree(files=(("x", FILE), ("y", OTHER))),
    MIDDLE: DirTree(files=(("z", OTHER),), dirs=(("leaf", LEAF, META),)),
    ROOT: DirTree(
        files=(("x", FILE),),
        dirs=(("gone", GONE, META), ("leaf", LEAF, META), ("middle", MIDDLE, META)),
    ),
}


def commit(root: Checksum, meta: Checksum = META) -> Commit:
    return Commit(root_dirtree=root, root_dirmeta=meta, timestamp=0)


def places(kind: ObjectType, checksum: Checksum) -> list[tuple[str, str]]:
    """Where two commits have one object: the commit's letter, and the path."""
    name = ObjectName(checksum, kind)
    commits = [(FIRST, commit(ROOT)), (SECOND, commit(MIDDLE, OTHER))]
    found = find_places({name}, commits, TREES.get)
    return [(place.commit[0], place.path) for place in found[name]]


def test_a_file_is_found_at_every_path_of_every_commit() -> None:
    assert places(ObjectType.FILE, FILE) == [
        ("e", "/x"),
        ("e", "/leaf/x"),
        ("e", "/middle/leaf/x"),
        ("f", "/leaf/x"),
    ]


def test_directories_are_found_by_their_entries_and_their_metadata() -> None:
    assert places(ObjectType.DIRTREE, LEAF) == [
        ("e", "/leaf"),
        ("e", "/middle/leaf"),
        ("f", "/leaf"),
    ]
    assert places(ObjectType.DIRTREE, GONE) == [("e", "/gone")]
    assert places(ObjectType.DIRTREE, ROOT) == [("e", "/")]
    assert places(ObjectType.DIRMETA, OTHER) == [("f", "/")]
    assert len(places(ObjectType.DIRMETA, META)) == 6


def test_detached_metadata_is_found_with_its_commit() -> None:
    assert places(ObjectType.COMMITMETA, FIRST) == [("e", "/")]


def test_what_no_commit_has_is_nowhere() -> None:
    assert places(ObjectType.FILE, META) == []


def test_a_directory_is_read_no_more_often_than_it_must() -> None:
    reads: list[Checksum] = []

    def load(checksum: Checksum) -> DirTree | None:
        reads.append(checksum)
        return TREES.get(checksum)

    wanted = {ObjectName(META, ObjectType.FILE)}
    find_places(wanted, [(FIRST, commit(ROOT)), (SECOND, commit(ROOT))], load)
    assert sorted(reads) == sorted([ROOT, LEAF, MIDDLE, GONE])


def test_places_without_end_are_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each level names the one below it twice: 2 ** 40 paths to one file.
    trees = {key("0"): DirTree(files=(("x", FILE),))}
    below = key("0")
    for level in range(1, 40):
        checksum = Checksum(f"{level:064x}")
        trees[checksum] = DirTree(dirs=(("a", below, META), ("b", below, META)))
        below = checksum
    monkeypatch.setattr(finding, "MAX_PLACES", 100)
    name = ObjectName(FILE, ObjectType.FILE)
    found = find_places({name}, [(FIRST, commit(below))], trees.get)
    assert 0 < len(found[name]) <= 100
    assert len(set(found[name])) == len(found[name])
    assert found[name][0] == Place(FIRST, "/" + "a/" * 39 + "x")


def test_one_directory_with_too_many_names_is_cut_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finding, "MAX_PLACES", 5)
    tree = DirTree(files=tuple((f"{n:02}", FILE) for n in range(20)))
    name = ObjectName(FILE, ObjectType.FILE)
    found = find_places({name}, [(FIRST, commit(LEAF))], {LEAF: tree}.get)
    assert len(found[name]) == 5
