"""The order in which a push sends what the origin may lack."""

import os
from pathlib import Path

import pytest

from p2p.errors import LimitError, ObjectNotFoundError
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirTree,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.repo import Repo
from p2p.web.treehub.push_plan import PushPlan
from tests.web.treehub.hub import DIRMETA, file_name, filez

META = checksum_of(DIRMETA)


class Nested:
    """A repository whose commits are given as nested dictionaries."""

    def __init__(self, path: Path) -> None:
        self.repo = Repo.init(path, RepoMode.ARCHIVE)
        self._put(ObjectName(META, ObjectType.DIRMETA), DIRMETA)

    def _put(self, name: ObjectName, data: bytes) -> Checksum:
        path = Path(self.repo.object_path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return name.checksum

    def tree(self, entries: dict[str, object]) -> Checksum:
        files = []
        dirs = []
        for name, entry in sorted(entries.items()):
            if isinstance(entry, dict):
                dirs.append((name, self.tree(entry), META))
            else:
                content = str(entry).encode()
                files.append((name, self._put(file_name(content), filez(content))))
        data = DirTree(tuple(files), tuple(dirs)).serialize()
        return self._put(ObjectName(checksum_of(data), ObjectType.DIRTREE), data)

    def commit(self, entries: dict[str, object], *, time: int = 1) -> Checksum:
        data = Commit(
            root_dirtree=self.tree(entries), root_dirmeta=META, timestamp=time
        ).serialize()
        return self._put(ObjectName(checksum_of(data), ObjectType.COMMIT), data)


def test_what_has_no_children_comes_first_and_the_root_last(tmp_path: Path) -> None:
    made = Nested(tmp_path)
    inner: dict[str, object] = {"c": {"deep": "1"}, "also": "2"}
    commit = made.commit({"a": inner, "b": {"deep": "1"}, "top": "3"})
    leaves, *levels = PushPlan(made.repo).add_commit(commit)
    assert set(leaves) == {
        ObjectName(META, ObjectType.DIRMETA),
        *(file_name(str(n).encode()) for n in (1, 2, 3)),
    }
    trees = [
        made.tree({"deep": "1"}),
        made.tree(inner),
        made.repo.load_commit(commit).root_dirtree,
    ]
    assert levels == [[ObjectName(tree, ObjectType.DIRTREE)] for tree in trees]


def test_what_is_known_is_left_out(tmp_path: Path) -> None:
    made = Nested(tmp_path)
    old = made.commit({"kept": {"x": "1"}, "gone": "2"})
    new = made.commit({"kept": {"x": "1"}, "new": "3"}, time=2)
    plan = PushPlan(made.repo)
    plan.add_known(old)
    root = made.repo.load_commit(new).root_dirtree
    assert plan.add_commit(new) == [
        [file_name(b"3")],
        [ObjectName(root, ObjectType.DIRTREE)],
    ]
    assert plan.add_commit(new) == [[]]


def test_what_is_known_may_be_here_in_part_or_not_at_all(tmp_path: Path) -> None:
    made = Nested(tmp_path)
    old = made.commit({"kept": {"x": "1"}})
    new = made.commit({"kept": {"x": "1"}, "again": {"y": "1"}}, time=2)
    lost = made.tree({"x": "1"})
    os.unlink(made.repo.object_path(ObjectName(lost, ObjectType.DIRTREE)))
    plan = PushPlan(made.repo)
    plan.add_known(Checksum("0" * 64))
    plan.add_known(old)
    named = {name for step in plan.add_commit(new) for name in step}
    # That the file is in the lost directory too nobody knows; it is asked about.
    assert file_name(b"1") in named
    assert ObjectName(lost, ObjectType.DIRTREE) not in named


def test_a_directory_that_is_not_here_ends_the_push(tmp_path: Path) -> None:
    made = Nested(tmp_path)
    commit = made.commit({"a": {"x": "1"}})
    os.unlink(
        made.repo.object_path(ObjectName(made.tree({"x": "1"}), ObjectType.DIRTREE))
    )
    with pytest.raises(ObjectNotFoundError):
        PushPlan(made.repo).add_commit(commit)


def test_a_directory_bomb_ends_the_push(tmp_path: Path) -> None:
    made = Nested(tmp_path)
    checksum = made.tree({})
    for _ in range(30):
        data = DirTree(dirs=(("a", checksum, META), ("b", checksum, META))).serialize()
        checksum = made._put(ObjectName(checksum_of(data), ObjectType.DIRTREE), data)
    commit = Commit(root_dirtree=checksum, root_dirmeta=META, timestamp=1).serialize()
    name = made._put(ObjectName(checksum_of(commit), ObjectType.COMMIT), commit)
    with pytest.raises(LimitError):
        PushPlan(made.repo).add_commit(name)
