"""Commits of directories: what is in them, and what stops them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from p2p.errors import FormatError, SourceTreeError
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import ObjectName, ObjectType, parse_metadata
from p2p.ostree.prune import prune
from p2p.ostree.repo import Repo
from p2p.ostree.sizes import parse_sizes
from p2p.ostree.source import SMALL_BYTES, Source, SourceOptions
from p2p.ostree.summary import parse_summary
from p2p.ostree.transaction import Transaction
from p2p.ostree.tree import FileEntry, find, list_tree
from tests.ostree.samples import MODES

MAIN = CommitOptions(branch="main", timestamp=1)
CANONICAL = SourceOptions(canonical_permissions=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "usr/bin").mkdir(parents=True)
    (top / "usr/bin/hello").write_bytes(b"#!/bin/sh\n")
    (top / "usr/bin/hello").chmod(0o755)
    (top / "usr/bin/hi").symlink_to("hello")
    os.link(top / "usr/bin/hello", top / "usr/bin/hard")
    (top / "usr/large").write_bytes(os.urandom(SMALL_BYTES + 1))
    (top / "empty").touch()
    return top


def make(tmp_path: Path, mode: RepoMode = RepoMode.BARE_USER) -> Repo:
    return Repo.init(tmp_path / "repo", mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_directory_becomes_a_commit(
    tmp_path: Path, tree: Path, mode: RepoMode
) -> None:
    repo = make(tmp_path, mode)
    commit = commit_tree(repo, tree, MAIN, CANONICAL)
    assert repo.resolve("main") == commit
    entries = {
        entry.path: entry
        for entry in list_tree(repo, find(repo, commit), recursive=True)
    }
    assert list(entries) == [
        *("/", "/empty", "/usr", "/usr/large", "/usr/bin"),
        *("/usr/bin/hard", "/usr/bin/hello", "/usr/bin/hi"),
    ]
    for path, entry in entries.items():
        if isinstance(entry, FileEntry):
            with repo.open_content(entry.checksum) as reader:
                assert reader.checksum() == entry.checksum
            if path != "/usr/bin/hi":
                with repo.open_content(entry.checksum) as reader:
                    content = b"".join(reader.content())
                assert content == (tree / path[1:]).read_bytes()
    hard, hello = entries["/usr/bin/hard"], entries["/usr/bin/hello"]
    assert isinstance(hard, FileEntry)
    assert isinstance(hello, FileEntry)
    assert hard.checksum == hello.checksum


def test_what_was_said_is_in_the_commit(tmp_path: Path, tree: Path) -> None:
    repo = Repo.init(
        tmp_path / "repo", RepoMode.ARCHIVE, collection_id="org.example.Os"
    )
    options = CommitOptions(
        branch="os/main",
        subject="Subject",
        body="Body",
        timestamp=1_700_000_000,
        metadata=(("version", Variant("s", "1")),),
        detached=(("note", Variant("s", "x")),),
        bind_refs=("other",),
        sizes=True,
        sign=lambda data: (("signature", Variant("u", len(data))),),
    )
    first = commit_tree(repo, tree, options)
    commit = repo.load_commit(first)
    assert (commit.subject, commit.body) == ("Subject", "Body")
    assert commit.timestamp == 1_700_000_000
    assert [key for key, _ in commit.metadata] == [
        "version",
        "ostree.ref-binding",
        "ostree.collection-binding",
        "ostree.sizes",
    ]
    assert commit.get("ostree.ref-binding", "as") == ("os/main", "other")
    sizes = parse_sizes(commit.get("ostree.sizes", "aay"))
    others = {n for n in repo.all_objects() if n.type <= ObjectType.DIRMETA}
    assert {size.name for size in sizes} == others
    for size in sizes:
        assert size.stored == os.stat(repo.object_path(size.name)).st_size
    detached = dict(parse_metadata(repo.load_commitmeta(first) or b""))
    assert detached["note"] == Variant("s", "x")
    assert detached["signature"] == Variant("u", len(commit.serialize()))
    assert commit.parent is None
    assert repo.load_commit(commit_tree(repo, tree, options)).parent == first


@pytest.mark.parametrize("parent", ["none", "a" * 64])
def test_a_parent_may_be_given(tmp_path: Path, tree: Path, parent: str) -> None:
    repo = make(tmp_path)
    commit_tree(repo, tree, MAIN)
    second = commit_tree(repo, tree, replace(MAIN, parent=parent))
    expected = None if parent == "none" else parent
    assert repo.load_commit(second).parent == expected


def test_an_orphan_has_no_parent_and_no_ref(tmp_path: Path, tree: Path) -> None:
    repo = make(tmp_path)
    commit = repo.load_commit(commit_tree(repo, tree, CommitOptions(branch=None)))
    assert commit.parent is None
    assert commit.get("ostree.ref-binding", "as") == ()
    assert commit.timestamp > 1_700_000_000
    assert list(repo.refs.all()) == []


def test_bindings_may_be_left_out(tmp_path: Path, tree: Path) -> None:
    repo = make(tmp_path)
    commit = commit_tree(repo, tree, replace(MAIN, bindings=False))
    assert repo.load_commit(commit).metadata == ()


def test_nothing_is_written_for_a_tree_that_is_there(
    tmp_path: Path, tree: Path
) -> None:
    repo = make(tmp_path)
    commit = commit_tree(repo, tree, MAIN)
    before = {n: os.stat(repo.object_path(n)).st_ino for n in repo.all_objects()}
    assert commit_tree(repo, tree, replace(MAIN, parent="none")) == commit
    after = {n: os.stat(repo.object_path(n)).st_ino for n in repo.all_objects()}
    assert before == after


def test_objects_that_are_pruned_meanwhile_are_written_again(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path)
    orphan = commit_tree(repo, tree, CommitOptions(branch=None))
    real = Transaction.publish
    pruned: list[bool] = []

    def prune_first(self: Transaction, *args: object, **options: object) -> object:
        if not pruned:
            pruned.append(True)
            os.unlink(repo.object_path(ObjectName(orphan, ObjectType.COMMIT)))
            assert prune(repo).pruned > 3
        return real(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Transaction, "publish", prune_first)
    commit = commit_tree(repo, tree, MAIN)
    for entry in list_tree(repo, find(repo, commit), recursive=True):
        if isinstance(entry, FileEntry):
            repo.open_content(entry.checksum).close()


def test_a_large_file_that_changes_is_never_a_wrong_object(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path)
    real = Transaction.create

    def change_first(self: Transaction, header: object, size: int) -> object:
        if size > SMALL_BYTES:
            # The same inode, size and times: only the second hash can tell.
            status = (tree / "usr/large").stat()
            with (tree / "usr/large").open("r+b") as file:
                file.write(b"other bytes")
            os.utime(tree / "usr/large", ns=(status.st_atime_ns, status.st_mtime_ns))
        return real(self, header, size)  # type: ignore[arg-type]

    monkeypatch.setattr(Transaction, "create", change_first)
    monkeypatch.setattr("p2p.ostree.source._identity", lambda _status: ())
    with pytest.raises(SourceTreeError, match="changed while it was read"):
        commit_tree(repo, tree, MAIN)
    assert list(repo.all_objects()) == []
    assert list(repo.refs.all()) == []


@pytest.mark.parametrize("mode", [RepoMode.ARCHIVE, RepoMode.BARE_USER])
def test_a_tree_that_cannot_be_committed_leaves_nothing(
    tmp_path: Path, tree: Path, mode: RepoMode
) -> None:
    repo = make(tmp_path, mode)
    (tree / "usr/bin/late").touch()
    os.mkfifo(tree / "usr/pipe")
    with pytest.raises(SourceTreeError, match="usr/pipe"):
        commit_tree(repo, tree, MAIN)
    assert list(repo.all_objects()) == []
    assert os.listdir(Path(repo.path, "tmp")) == ["cache"]


def test_an_error_in_a_thread_is_told(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path, RepoMode.ARCHIVE)

    def fail(*_args: object) -> object:
        raise SourceTreeError("cannot be read")

    monkeypatch.setattr(Source, "read", fail)
    with pytest.raises(SourceTreeError, match="cannot be read"):
        commit_tree(repo, tree, MAIN)
    assert list(repo.all_objects()) == []


@pytest.mark.parametrize("branch", ["../x", "", "a b"])
def test_an_impossible_branch_is_refused_before_anything(
    tmp_path: Path, tree: Path, branch: str
) -> None:
    repo = make(tmp_path)
    with pytest.raises(FormatError, match="not a ref"):
        commit_tree(repo, tree, CommitOptions(branch=branch))
    assert list(repo.all_objects()) == []


def test_without_xattrs_none_are_committed(tmp_path: Path, tree: Path) -> None:
    os.setxattr(tree / "empty", "user.a", b"1")
    repo = make(tmp_path)
    with_xattrs = commit_tree(repo, tree, MAIN)
    off = Repo.open(repo.path, {"disable-xattrs": "true"})
    options = replace(MAIN, parent="none")
    without = commit_tree(off, tree, options)
    assert without != with_xattrs
    assert commit_tree(repo, tree, options, SourceOptions(xattrs=False)) == without


def test_the_summary_follows_where_configured(tmp_path: Path, tree: Path) -> None:
    repo = make(tmp_path)
    commit_tree(repo, tree, MAIN)
    assert not os.path.exists(f"{repo.path}/summary")
    eager = Repo.open(repo.path, {"commit-update-summary": "true"})
    commit = commit_tree(eager, tree, MAIN)
    summary = parse_summary(Path(repo.path, "summary").read_bytes())
    found = summary.find("main")
    assert found is not None
    assert found.commit == commit
