"""What a commit lacks, and the way from one commit to another."""

import os
from pathlib import Path

import pytest

from p2p.ostree.objects import ObjectType
from p2p.web.treehub import completeness
from p2p.web.treehub.completeness import commits_between, find_missing
from tests.web.treehub.hub import make_commit, make_repo

FIRST = make_commit({"a": b"a"})
SECOND = make_commit({"b": b"b"}, parent=FIRST.commit, time=2)
THIRD = make_commit(
    {f"f{n}": b"%d" % n for n in range(20)}, parent=SECOND.commit, time=3
)


def test_the_commits_between_two_are_found_oldest_first(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, FIRST, SECOND, THIRD)
    between = commits_between(repo, FIRST.commit, THIRD.commit)
    assert between == (SECOND.commit, THIRD.commit)
    assert commits_between(repo, THIRD.commit, THIRD.commit) == ()
    assert commits_between(repo, THIRD.commit, FIRST.commit) is None


def test_a_gap_in_the_history_leads_nowhere(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, SECOND, THIRD)
    assert commits_between(repo, FIRST.commit, SECOND.commit) == (SECOND.commit,)
    os.unlink(repo.object_path(SECOND.commit_name))
    assert commits_between(repo, FIRST.commit, THIRD.commit) is None


def test_a_history_is_not_followed_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(tmp_path, FIRST, SECOND, THIRD)
    monkeypatch.setattr(completeness, "MAX_ANCESTORS", 2)
    assert commits_between(repo, FIRST.commit, THIRD.commit) is None


def test_what_is_missing_is_counted_and_the_first_are_named(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, THIRD)
    assert not find_missing(repo, repo.load_commit(THIRD.commit))
    files = [name for name in THIRD.stored if name.type is ObjectType.FILE]
    for name in files:
        os.unlink(repo.object_path(name))
    missing = find_missing(repo, repo.load_commit(THIRD.commit))
    assert missing.count == 20
    assert len(missing.first) == 5
    assert str(missing).startswith("20 objects: ")
    assert str(missing).endswith(", …")
    tree = next(name for name in THIRD.stored if name.type is ObjectType.DIRTREE)
    os.unlink(repo.object_path(tree))
    missing = find_missing(repo, repo.load_commit(THIRD.commit))
    assert str(missing) == f"1 objects: {tree}"
