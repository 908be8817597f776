"""A repository on disk: made, opened, read, and what is wrong with it told."""

import os
from pathlib import Path

import pytest

from p2p.errors import (
    ConfigError,
    DamagedObjectError,
    FormatError,
    LockedError,
    NoSpaceError,
    ObjectNotFoundError,
    RefNotFoundError,
)
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import (
    MAX_METADATA_BYTES,
    Checksum,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.refs import RefPath, head
from p2p.ostree.repo import Repo
from tests.ostree.samples import TREE, Sample, sample

A = Checksum("a" * 64)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.init(tmp_path / "repo", RepoMode.ARCHIVE)


def put(repo: Repo, name: ObjectName, data: bytes) -> Path:
    path = Path(repo.object_path(name))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def put_metadata(repo: Repo, commit: Sample) -> None:
    for name, data in commit.objects.items():
        if name.type is not ObjectType.FILE:
            put(repo, name, data)


@pytest.mark.parametrize("mode", [m for m in RepoMode if m != "bare-split-xattrs"])
def test_a_repository_has_the_layout_of_ostree(tmp_path: Path, mode: RepoMode) -> None:
    repo = Repo.init(tmp_path / "repo", mode, collection_id="org.example.Os")
    assert repo.config.mode is mode
    assert sorted(os.listdir(repo.path)) == [
        *("config", "extensions", "objects", "refs", "state", "tmp")
    ]
    assert sorted(os.listdir(f"{repo.path}/refs")) == ["heads", "mirrors", "remotes"]
    config = Path(repo.path, "config").read_text()
    assert config == (
        f"[core]\nrepo_version=1\nmode={mode}\ncollection-id=org.example.Os\n"
    )
    assert repr(repo) == f"<Repo {repo.path} {mode}>"


def test_making_it_again_is_the_same_unless_its_mode_differs(repo: Repo) -> None:
    assert Repo.init(repo.path, RepoMode.ARCHIVE).path == repo.path
    with pytest.raises(ConfigError, match="is archive-z2, not bare"):
        Repo.init(repo.path, RepoMode.BARE)


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only read"):
        Repo.init(tmp_path / "r", RepoMode.BARE_SPLIT_XATTRS)
    with pytest.raises(ConfigError, match="collection-id"):
        Repo.init(tmp_path / "r", RepoMode.BARE, collection_id="bad")
    assert os.listdir(tmp_path) == []


def test_what_is_no_repository_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not an OSTree repository") as caught:
        Repo.open(tmp_path)
    assert "p2p init" in caught.value.hint
    (tmp_path / "objects").mkdir()
    with pytest.raises(ConfigError, match="config"):
        Repo.open(tmp_path)


def test_settings_may_count_instead_of_the_files(repo: Repo) -> None:
    assert not Repo.open(repo.path, {"fsync": "false"}).config.fsync
    assert Repo.open(repo.path).config.fsync


def test_a_changed_configuration_is_kept(repo: Repo) -> None:
    repo.keys.set("core", "fsync", "false")
    repo.save_config()
    assert not repo.config.fsync
    assert not Repo.open(repo.path).config.fsync


def test_remotes_are_its_own(repo: Repo) -> None:
    repo.keys.set("core", "add-remotes-config-dir", "false")
    repo.keys.set('remote "origin"', "url", "https://example.org")
    repo.save_config()
    assert repo.remote_names() == ["origin"]
    assert repo.remote("origin").url == "https://example.org"


def test_remotes_are_also_the_systems(repo: Repo) -> None:
    repo.keys.set('remote "origin"', "url", "https://example.org")
    assert "origin" in repo.remote_names()


def test_objects_are_found_and_checked(repo: Repo) -> None:
    commit = sample(TREE)
    assert not repo.has(commit.name)
    put_metadata(repo, commit)
    assert repo.has(commit.name)
    assert repo.load_commit(commit.checksum) == commit.commit
    assert repo.load_dirtree(commit.commit.root_dirtree).dirs
    names = {name for name in commit.objects if name.type is not ObjectType.FILE}
    assert set(repo.all_objects()) == names


def test_missing_objects_are_told_apart_from_damaged_ones(repo: Repo) -> None:
    name = ObjectName(A, ObjectType.DIRTREE)
    with pytest.raises(ObjectNotFoundError, match="no object a"):
        repo.load_metadata(name)
    with pytest.raises(ObjectNotFoundError, match="no object a"):
        repo.open_content(A)
    put(repo, name, b"other bytes")
    with pytest.raises(DamagedObjectError, match="damaged"):
        repo.load_dirtree(A)
    put(repo, name, bytes(MAX_METADATA_BYTES + 1))
    with pytest.raises(DamagedObjectError, match="larger"):
        repo.load_dirtree(A)


def test_detached_metadata_is_there_or_not(repo: Repo) -> None:
    assert repo.load_commitmeta(A) is None
    put(repo, ObjectName(A, ObjectType.COMMITMETA), b"anything")
    assert repo.load_commitmeta(A) == b"anything"


def test_other_files_among_the_objects_are_passed_over(repo: Repo) -> None:
    name = ObjectName(checksum_of(b"x"), ObjectType.DIRTREE)
    put(repo, name, b"x")
    for odd in ("zz", "aaa", "tmp"):
        (Path(repo.objects) / odd).mkdir()
    (Path(repo.object_path(name)).parent / "tmp-file").touch()
    assert list(repo.all_objects()) == [name]


def test_a_parent_repository_is_looked_into(tmp_path: Path, repo: Repo) -> None:
    commit = sample(TREE)
    put_metadata(repo, commit)
    content = ObjectName(A, ObjectType.FILE)
    put(repo, content, b"")
    child = Repo.init(tmp_path / "child", RepoMode.BARE_USER)
    child.keys.set("core", "parent", "../repo")
    child.save_config()
    child = Repo.open(child.path)
    assert child.has(commit.name)
    assert child.load_commit(commit.checksum) == commit.commit
    assert list(child.all_objects()) == []
    # Content is read in the parent's mode.
    with pytest.raises(FormatError, match="shorter than its frame"):
        child.open_content(A)


def test_parents_in_a_circle_are_refused(tmp_path: Path) -> None:
    for name, parent in (("a", "../b"), ("b", "../a")):
        made = Repo.init(tmp_path / name, RepoMode.BARE_USER)
        made.keys.set("core", "parent", parent)
        made.save_config()
    with pytest.raises(ConfigError, match="circle"):
        Repo.open(tmp_path / "a").has(ObjectName(A, ObjectType.FILE))


def test_revisions_are_resolved(repo: Repo) -> None:
    first = sample(TREE)
    second = sample(TREE, parent=first, timestamp=2)
    for commit in (first, second):
        put_metadata(repo, commit)
    repo.refs.set(head("main"), second.checksum)
    assert repo.resolve("main") == repo.resolve(second.checksum) == second.checksum
    assert (
        repo.resolve("main^") == repo.resolve(f"{second.checksum}^") == first.checksum
    )
    with pytest.raises(RefNotFoundError, match="has no parent"):
        repo.resolve("main^^")
    for rev in ("other", "remote:main"):
        with pytest.raises(RefNotFoundError, match="there is no ref"):
            repo.resolve(rev)
    with pytest.raises(FormatError, match="not a ref"):
        repo.resolve("../main")


def test_a_branch_of_the_only_remote_that_has_it_is_found(repo: Repo) -> None:
    repo.refs.set(RefPath("remotes/one/os/main"), A)
    assert repo.resolve("os/main") == repo.resolve("one:os/main") == A
    repo.refs.set(RefPath("remotes/two/os/main"), A)
    assert repo.resolve("os/main") == A
    repo.refs.set(RefPath("remotes/two/os/main"), Checksum("b" * 64))
    with pytest.raises(RefNotFoundError):
        repo.resolve("os/main")


def test_partial_and_deleted_commits_are_told(repo: Repo) -> None:
    assert not repo.is_partial(A)
    Path(repo.partial_path(A)).touch()
    assert repo.is_partial(A)
    assert not repo.is_tombstoned(A)
    put(repo, ObjectName(A, ObjectType.TOMBSTONE_COMMIT), b"")
    assert repo.is_tombstoned(A)


def test_free_space_is_kept_in_reserve(repo: Repo) -> None:
    for key, value in (("min-free-space-size", "1MB"), ("min-free-space-percent", "1")):
        limited = Repo.open(repo.path, {key: value})
        free = limited.check_free_space()
        assert limited.check_free_space(free // 2) > 0
        with pytest.raises(NoSpaceError, match="must stay free"):
            limited.check_free_space(1 << 60)


def test_the_lock_is_taken_as_configured(repo: Repo) -> None:
    impatient = Repo.open(repo.path, {"lock-timeout-secs": "0"})
    with repo.lock(exclusive=True), pytest.raises(LockedError):
        impatient.lock(exclusive=False).__enter__()
    unlocked = Repo.open(repo.path, {"locking": "false"})
    with repo.lock(exclusive=True), unlocked.lock(exclusive=True):
        assert os.path.exists(f"{repo.path}/.lock")
