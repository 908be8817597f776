"""New objects: nothing is visible before all is, and nothing is left behind."""

import os
import shutil
from pathlib import Path

import pytest

from p2p.errors import LockedError, NoSpaceError, RepositoryError
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import (
    MAX_METADATA_BYTES,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.refs import head
from p2p.ostree.repo import Repo
from p2p.ostree.transaction import Transaction

PLAIN = FileHeader(0, 0, 0o100644)
HELLO = ObjectName(checksum_of(PLAIN.frame() + b"hello"), ObjectType.FILE)
REF = head("main")


@pytest.fixture(params=["fsync", "each", "none"])
def repo(tmp_path: Path, request: pytest.FixtureRequest) -> Repo:
    made = Repo.init(tmp_path / "repo", RepoMode.BARE_USER_ONLY)
    settings = {
        "fsync": {},
        "each": {"per-object-fsync": "true"},
        "none": {"fsync": "false"},
    }
    return Repo.open(made.path, settings[request.param])


def add_hello(transaction: Transaction) -> None:
    if transaction.has(HELLO):
        return
    with transaction.create(PLAIN, 5) as writer:
        writer.write(b"hello")
        transaction.adopt(HELLO, writer, size=5)


def add_tree(transaction: Transaction) -> bytes:
    """A commit of one file; its bytes."""
    add_hello(transaction)
    tree = DirTree(files=(("hello", HELLO.checksum),)).serialize()
    meta = DirMeta(0, 0, 0o040755).serialize()
    return Commit(
        root_dirtree=transaction.add_metadata(ObjectType.DIRTREE, tree),
        root_dirmeta=transaction.add_metadata(ObjectType.DIRMETA, meta),
        timestamp=1,
    ).serialize()


def write_half(transaction: Transaction) -> None:
    with transaction.create(PLAIN, 5) as writer:
        writer.write(b"hel")
        raise RuntimeError("stop")


def write_much(transaction: Transaction) -> None:
    with transaction.create(PLAIN, 5) as writer:
        writer.write(b"hello")
        transaction.adopt(HELLO, writer, size=64 << 20)


def test_everything_appears_with_the_commit(repo: Repo) -> None:
    with Transaction(repo) as transaction:
        data = add_tree(transaction)
        assert list(repo.all_objects()) == []
        assert transaction.stored_size(HELLO) == 5
        commit = transaction.publish(data, detached=b"", ref=REF)
        assert transaction.stored_size(HELLO) == 5
    assert commit == checksum_of(data)
    assert repo.resolve("main") == commit
    assert repo.load_commitmeta(checksum_of(data)) == b""
    assert len(list(repo.all_objects())) == 5
    assert os.listdir(Path(repo.path, "tmp")) == ["cache"]


def test_an_orphan_has_no_ref_and_no_detached_metadata(repo: Repo) -> None:
    with Transaction(repo) as transaction:
        data = add_tree(transaction)
        transaction.publish(data, detached=None, ref=None)
    assert list(repo.refs.all()) == []
    assert repo.load_commitmeta(checksum_of(data)) is None


def test_what_is_not_published_is_gone(repo: Repo) -> None:
    with Transaction(repo) as transaction:
        add_tree(transaction)
    assert list(repo.all_objects()) == []
    assert os.listdir(Path(repo.path, "tmp")) == ["cache"]


def test_what_is_not_adopted_is_gone(repo: Repo) -> None:
    with Transaction(repo) as transaction:
        with pytest.raises(RuntimeError, match="stop"):
            write_half(transaction)
        assert not transaction.has(HELLO)


def test_objects_that_are_there_are_not_written_again(repo: Repo) -> None:
    with Transaction(repo) as transaction:
        transaction.publish(add_tree(transaction), detached=None, ref=REF)
    inode = os.stat(repo.object_path(HELLO)).st_ino
    with Transaction(repo) as transaction:
        transaction.publish(add_tree(transaction), detached=b"new", ref=None)
    assert os.stat(repo.object_path(HELLO)).st_ino == inode
    assert repo.load_commitmeta(repo.resolve("main")) == b"new"


def test_the_second_of_two_equal_files_is_dropped(repo: Repo) -> None:
    with Transaction(repo) as transaction:
        for _ in range(2):
            with transaction.create(PLAIN, 5) as writer:
                writer.write(b"hello")
                transaction.adopt(HELLO, writer, size=5)
        transaction.publish(add_tree(transaction), detached=None, ref=REF)
    assert len(list(repo.all_objects())) == 4


def test_objects_that_were_pruned_meanwhile_are_asked_for_again(repo: Repo) -> None:
    with Transaction(repo) as first:
        first.publish(add_tree(first), detached=None, ref=None)
    with Transaction(repo) as transaction:
        data = add_tree(transaction)
        os.unlink(repo.object_path(HELLO))
        assert transaction.publish(data, detached=None, ref=REF) is None
        assert list(repo.refs.all()) == []
        add_tree(transaction)
        assert transaction.publish(data, detached=None, ref=REF) == checksum_of(data)
    assert repo.has(HELLO)


def test_a_partial_commit_is_complete_afterwards(repo: Repo) -> None:
    with Transaction(repo) as transaction:
        data = add_tree(transaction)
        Path(repo.partial_path(checksum_of(data))).touch()
        transaction.publish(data, detached=None, ref=REF)
    assert not repo.is_partial(checksum_of(data))


def test_a_locked_repository_is_an_error_and_nothing_appears(repo: Repo) -> None:
    repo = Repo.open(repo.path, {"lock-timeout-secs": "0"})
    with Transaction(repo) as transaction:
        data = add_tree(transaction)
        with repo.lock(exclusive=True), pytest.raises(LockedError):
            transaction.publish(data, detached=None, ref=REF)
    assert list(repo.all_objects()) == []


def test_metadata_that_nobody_would_read_is_refused(repo: Repo) -> None:
    with (
        Transaction(repo) as transaction,
        pytest.raises(RepositoryError, match="more than OSTree takes"),
    ):
        transaction.add_metadata(ObjectType.DIRTREE, bytes(MAX_METADATA_BYTES + 1))


def test_settings_that_only_libostree_knows_are_refused(repo: Repo) -> None:
    repo = Repo.open(repo.path, {"payload-link-threshold": "1"})
    with pytest.raises(RepositoryError, match="payload-link-threshold") as caught:
        Transaction(repo)
    assert "ostree commit" in caught.value.hint


def test_a_full_disk_is_noticed_before_and_while_writing(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Repo.open(repo.path, {"min-free-space-size": "900TB"})
    with pytest.raises(NoSpaceError):
        Transaction(full)
    with Transaction(repo) as transaction:
        monkeypatch.setattr(repo, "check_free_space", full.check_free_space)
        with pytest.raises(NoSpaceError):
            write_much(transaction)
        assert not transaction.has(HELLO)


def test_a_directory_that_cannot_be_written_is_an_error(repo: Repo) -> None:
    with Transaction(repo) as transaction:
        data = add_tree(transaction)
        shutil.rmtree(repo.objects)
        Path(repo.objects).touch()
        with pytest.raises(RepositoryError, match="Not a directory"):
            transaction.publish(data, detached=None, ref=REF)
    assert list(repo.refs.all()) == []
