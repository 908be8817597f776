"""Old commits for neighbours: what is kept, what goes, and what never does."""

import os
import shutil
from pathlib import Path

import pytest

from p2p.ostree.cache import PREFIX, keep_commit, kept_commits, trim
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.refs import RefPath, head
from p2p.ostree.repo import Repo
from tests.oracle import dangling, walk_objects

FILE_BYTES = 10_000


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.init(tmp_path / "repo", RepoMode.BARE_USER)


def commit(repo: Repo, number: int) -> Checksum:
    """A commit with one file of its own and one that all share; the head now."""
    tree = Path(repo.path).parent / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    (tree / "own").write_bytes(bytes([number]) * FILE_BYTES)
    (tree / "shared").write_bytes(b"s" * FILE_BYTES)
    return commit_tree(repo, tree, CommitOptions(branch="main", timestamp=number))


def keep(repo: Repo, number: int, checksum: Checksum) -> None:
    keep_commit(repo, "hub", checksum)
    path = os.path.join(repo.path, "refs", f"{PREFIX}hub/{checksum}")
    os.utime(path, (number, number))


@pytest.fixture
def history(repo: Repo) -> list[Checksum]:
    """Five commits, of which the last is a branch's head and the others are kept."""
    commits = [commit(repo, number) for number in range(5)]
    for number, each in enumerate(commits[:4]):
        keep(repo, number, each)
    return commits


def here(repo: Repo, commits: list[Checksum]) -> list[bool]:
    return [repo.has(ObjectName(each, ObjectType.COMMIT)) for each in commits]


def test_the_oldest_go_until_the_rest_fits(repo: Repo, history: list[Checksum]) -> None:
    # Each has a file, a directory and itself; what the head shares does not count.
    assert trim(repo, 10 * FILE_BYTES) == ()
    gone = trim(repo, int(2.5 * FILE_BYTES))
    assert gone == tuple(history[:2])
    assert here(repo, history) == [False, False, True, True, True]
    assert [kept.commit for kept in kept_commits(repo)] == history[2:4]
    assert not walk_objects(Path(repo.path)).problems
    assert not dangling(Path(repo.path))


def test_without_a_quota_nothing_is_kept_but_what_is_needed(
    repo: Repo, history: list[Checksum]
) -> None:
    repo.refs.set(head("pinned"), history[1])
    assert trim(repo, 0) == (history[0], history[2], history[3])
    assert here(repo, history) == [False, True, False, False, True]
    assert kept_commits(repo) == []
    assert not repo.config.tombstone_commits
    assert not walk_objects(Path(repo.path)).problems


def test_what_is_deployed_is_never_deleted(
    repo: Repo, history: list[Checksum], tmp_path: Path
) -> None:
    root = tmp_path / "run"
    (root / "deployments" / f"{history[0]}.0").mkdir(parents=True)
    place = Path(repo.path, "extensions/p2p/deployed/place")
    place.parent.mkdir(parents=True)
    place.write_bytes(os.fsencode(root))
    assert history[0] not in trim(repo, 0)
    assert here(repo, history)[0]


def test_a_partial_commit_is_not_kept(repo: Repo) -> None:
    partial = commit(repo, 1)
    Path(repo.partial_path(partial)).touch()
    keep_commit(repo, "hub", partial)
    keep_commit(repo, "hub", Checksum("a" * 64))
    assert kept_commits(repo) == []


def test_a_ref_that_another_process_deletes_meanwhile_does_not_count(
    repo: Repo, history: list[Checksum], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [*repo.refs.all(PREFIX)]
    repo.refs.delete(RefPath(f"{PREFIX}hub/{history[0]}"))
    monkeypatch.setattr(type(repo.refs), "all", lambda *_: iter(listed))
    assert {kept.commit for kept in kept_commits(repo)} == set(history[1:4])


def test_refs_of_others_below_the_name_are_left_alone(repo: Repo) -> None:
    other = commit(repo, 1)
    repo.refs.set(RefPath(f"{PREFIX}mine"), other)
    assert kept_commits(repo) == []
    assert trim(repo, 0) == ()
    assert repo.refs.get(RefPath(f"{PREFIX}mine")) == other
