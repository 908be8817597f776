"""Prune: what is needed stays, whatever is lost or broken."""

import base64
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from p2p.errors import (
    DamagedObjectError,
    LockedError,
    ObjectNotFoundError,
    RefNotFoundError,
    RepositoryError,
)
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import (
    Checksum,
    ObjectName,
    ObjectType,
    lookup,
    parse_metadata,
    raw,
)
from p2p.ostree.prune import PruneOptions, PruneReport, prune
from p2p.ostree.refs import RefPath, head
from p2p.ostree.repo import Repo

A = Checksum("a" * 64)
REFS = PruneOptions(refs_only=True)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.init(tmp_path / "repo", RepoMode.ARCHIVE)


def commit(repo: Repo, number: int, branch: str | None = "main") -> Checksum:
    """A commit of one file of its own in a directory of its own."""
    tree = Path(repo.path).parent / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "d").mkdir(parents=True)
    (tree / "d/file").write_text(str(number))
    return commit_tree(repo, tree, CommitOptions(branch=branch, timestamp=number))


def commits(repo: Repo) -> list[int]:
    """The timestamps of the commits that are there and have all their objects."""
    return sorted(
        repo.load_commit(name.checksum).timestamp
        for name in repo.all_objects()
        if name.type is ObjectType.COMMIT
    )


@pytest.mark.parametrize(
    "options, left",
    [
        (PruneOptions(), [1, 2, 3, 4, 9]),
        (REFS, [1, 2, 3, 4]),
        (PruneOptions(refs_only=True, depth=0), [4]),
        (PruneOptions(refs_only=True, depth=2), [2, 3, 4]),
        (PruneOptions(depth=0), [1, 2, 3, 4, 9]),
        (PruneOptions(keep_younger_than=3), [3, 4]),
        (PruneOptions(keep_younger_than=99), [4]),
    ],
)
def test_what_the_options_say_is_kept(
    repo: Repo, options: PruneOptions, left: list[int]
) -> None:
    for number in (1, 2, 3, 4):
        commit(repo, number)
    commit(repo, 9, branch=None)
    dry = prune(repo, replace(options, dry_run=True))
    assert commits(repo) == [1, 2, 3, 4, 9]
    report = prune(repo, options)
    assert report == dry
    assert commits(repo) == left
    # Each commit has a file and two directories of its own; metadata is shared.
    assert report.total - report.pruned == 4 * len(left) + 1
    assert (report.freed_bytes > 0) is (report.pruned > 0)
    assert prune(repo, options).pruned == 0


def test_two_branches_may_share_a_history_of_different_depth(repo: Repo) -> None:
    for number in (1, 2, 3, 4):
        commit(repo, number)
    repo.refs.set(head("other"), repo.resolve("main^"))
    prune(repo, PruneOptions(refs_only=True, depth=1))
    assert commits(repo) == [2, 3, 4]


def test_a_history_that_was_never_pulled_ends_there(repo: Repo) -> None:
    for number in (1, 2):
        commit(repo, number)
    first = ObjectName(repo.resolve("main^"), ObjectType.COMMIT)
    os.unlink(repo.object_path(first))
    prune(repo, REFS)
    assert commits(repo) == [2]


def test_a_dangling_ref_keeps_nothing_and_hurts_nothing(repo: Repo) -> None:
    commit(repo, 1)
    repo.refs.set(head("gone"), A)
    assert prune(repo, REFS).pruned == 0


def test_a_deleted_commit_leaves_a_tombstone(repo: Repo) -> None:
    for number in (1, 2, 3):
        commit(repo, number)
    victim = repo.resolve("main^")
    meta = Path(repo.object_path(ObjectName(victim, ObjectType.COMMITMETA)))
    meta.touch()
    Path(repo.partial_path(victim)).touch()
    dry = PruneOptions(delete_commits=(victim,), dry_run=True)
    # The commit, its two directories and its file.
    assert prune(repo, dry).pruned == 4
    assert commits(repo) == [1, 2, 3]
    prune(repo, PruneOptions(delete_commits=(victim,)))
    assert commits(repo) == [1, 3]
    assert not meta.exists()
    assert not repo.is_partial(victim)
    tombstone = ObjectName(victim, ObjectType.TOMBSTONE_COMMIT)
    data = Path(repo.object_path(tombstone)).read_bytes()
    assert lookup(parse_metadata(data), "commit", "ay") == f"{victim}\0".encode()
    repo = Repo.open(repo.path)
    assert repo.config.tombstone_commits
    orphan = commit(repo, 4, branch=None)
    prune(repo, PruneOptions(delete_commits=(orphan,)))
    assert repo.is_tombstoned(orphan)


def test_settings_of_the_moment_are_not_written_down(repo: Repo) -> None:
    orphan = commit(repo, 1, branch=None)
    fast = Repo.open(repo.path, {"fsync": "false"})
    prune(fast, PruneOptions(delete_commits=(orphan,)))
    config = Path(repo.path, "config").read_text()
    assert "tombstone-commits=true" in config
    assert "fsync" not in config


def test_tombstones_are_left_wherever_they_are_configured(repo: Repo) -> None:
    first = commit(repo, 1)
    commit(repo, 2)
    repo.keys.set("core", "tombstone-commits", "true")
    repo.save_config()
    prune(Repo.open(repo.path), PruneOptions(refs_only=True, depth=0))
    assert repo.is_tombstoned(first)


@pytest.mark.parametrize("ref", ["heads/main", "remotes/r/x", "mirrors/org.a.B/m"])
def test_a_commit_that_a_ref_names_is_not_deleted(repo: Repo, ref: str) -> None:
    victim = commit(repo, 1, branch=None)
    repo.refs.set(RefPath(ref), victim)
    with pytest.raises(RepositoryError, match=f"named by the ref {ref}"):
        prune(repo, PruneOptions(delete_commits=(victim,)))
    assert commits(repo) == [1]


def test_a_commit_that_is_not_there_cannot_be_deleted(repo: Repo) -> None:
    with pytest.raises(RefNotFoundError, match="no commit"):
        prune(repo, PruneOptions(delete_commits=(A,)))
    assert not Repo.open(repo.path).config.tombstone_commits


def test_deployed_commits_are_kept_and_not_deleted(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "ostree/repo", RepoMode.BARE_USER)
    deployed = commit(repo, 1, branch=None)
    (tmp_path / f"ostree/deploy/os/deploy/{deployed}.0").mkdir(parents=True)
    prune(repo, REFS)
    assert commits(repo) == [1]
    with pytest.raises(RepositoryError, match="is deployed"):
        prune(repo, PruneOptions(delete_commits=(deployed,)))


def remove_directory(repo: Repo, checksum: Checksum) -> None:
    root = repo.load_commit(checksum).root_dirtree
    ((_, subtree, _),) = repo.load_dirtree(root).dirs
    os.unlink(repo.object_path(ObjectName(subtree, ObjectType.DIRTREE)))


def test_a_partial_commit_may_lack_directories(repo: Repo) -> None:
    checksum = commit(repo, 1)
    Path(repo.partial_path(checksum)).touch()
    remove_directory(repo, checksum)
    # What only the missing directory names is not known to be needed.
    assert prune(repo, REFS).pruned == 1
    assert commits(repo) == [1]
    assert repo.is_partial(checksum)


def test_nothing_is_deleted_when_it_is_not_known_what_is_needed(repo: Repo) -> None:
    checksum = commit(repo, 1)
    commit(repo, 2, branch=None)
    remove_directory(repo, checksum)
    with pytest.raises(ObjectNotFoundError):
        prune(repo, REFS)
    assert commits(repo) == [1, 2]
    root = repo.load_commit(checksum).root_dirtree
    Path(repo.object_path(ObjectName(root, ObjectType.DIRTREE))).write_bytes(b"x")
    with pytest.raises(DamagedObjectError):
        prune(repo, REFS)
    assert commits(repo) == [1, 2]


def test_what_somebody_else_needs_is_kept(repo: Repo) -> None:
    orphan = commit(repo, 1, branch=None)
    needed = ObjectName(orphan, ObjectType.COMMIT)
    assert prune(repo, REFS, keep=lambda: [needed]).pruned == 4
    assert commits(repo) == [1]


def test_it_waits_for_readers_and_writers(repo: Repo) -> None:
    impatient = Repo.open(repo.path, {"lock-timeout-secs": "0"})
    with repo.lock(exclusive=False), pytest.raises(LockedError):
        prune(impatient)


def test_a_payload_link_stays_with_its_file(repo: Repo) -> None:
    commit(repo, 1)
    kept = next(n for n in repo.all_objects() if n.type is ObjectType.FILE)
    for name, target in (("b" * 64, kept.checksum), ("c" * 64, A)):
        link = Path(
            repo.object_path(ObjectName(Checksum(name), ObjectType.PAYLOAD_LINK))
        )
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"../{ObjectName(target, ObjectType.FILE).path()}")
    assert prune(repo, REFS).pruned == 1
    left = [n for n in repo.all_objects() if n.type is ObjectType.PAYLOAD_LINK]
    assert [name.checksum[0] for name in left] == ["b"]


def test_deltas_to_commits_that_are_gone_go(repo: Repo) -> None:
    checksum = commit(repo, 1)
    for name in ("AA/" + "A" * 41, "BB/" + "A" * 41):
        directory = Path(repo.path, "deltas", name)
        directory.mkdir(parents=True)
        (directory / "superblock").touch()
    assert prune(repo, PruneOptions(dry_run=True)).pruned == 0
    assert len(list(Path(repo.path, "deltas").rglob("superblock"))) == 2
    name = base64.b64encode(raw(checksum)).decode().rstrip("=").replace("/", "_")
    kept = Path(repo.path, "deltas", name[:2], name[2:])
    kept.mkdir(parents=True)
    (kept / "superblock").touch()
    prune(repo)
    found = list(Path(repo.path, "deltas").rglob("superblock"))
    assert found == [kept / "superblock"]


def test_an_empty_repository_has_nothing_to_delete(repo: Repo) -> None:
    assert prune(repo) == PruneReport(0, 0, 0)


def test_no_fsync_is_asked_for_where_none_is_wanted(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repo, 1, branch=None)
    fast = Repo.open(repo.path, {"fsync": "false"})

    def forbidden(_path: str) -> None:
        raise AssertionError("synced")

    monkeypatch.setattr("p2p.ostree.prune.sync_filesystem", forbidden)
    assert prune(fast, REFS).pruned == 5
