"""Fsck: what is wrong is named, and a repair loses nothing that was right."""

import os
from pathlib import Path

import pytest

from p2p.ostree.check import Finding, Verdict, check_object
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.fsck import FsckReport, fsck
from p2p.ostree.gvariant import Variant, codec
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirTree,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.places import Place
from p2p.ostree.refs import head
from p2p.ostree.repo import Repo
from p2p.ostree.source import SourceOptions
from p2p.ostree.tree import DirEntry, FileEntry, find
from tests.ostree.samples import MODES

A = Checksum("a" * 64)
CANONICAL = SourceOptions(canonical_permissions=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "d").mkdir(parents=True)
    (top / "d/file").write_bytes(b"content")
    (top / "d/same").write_bytes(b"content")
    (top / "link").symlink_to("d")
    return top


def make(tmp_path: Path, tree: Path, mode: RepoMode = RepoMode.ARCHIVE) -> Repo:
    repo = Repo.init(tmp_path / "repo", mode)
    commit_tree(repo, tree, CommitOptions(branch="main", timestamp=1), CANONICAL)
    return repo


def name_at(repo: Repo, path: str) -> ObjectName:
    entry = find(repo, repo.resolve("main"), path)
    if isinstance(entry, FileEntry):
        return ObjectName(entry.checksum, ObjectType.FILE)
    assert isinstance(entry, DirEntry)
    return ObjectName(entry.tree, ObjectType.DIRTREE)


def put(repo: Repo, name: ObjectName, data: bytes) -> Path:
    path = Path(repo.object_path(name))
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


def verdicts(report: FsckReport) -> dict[ObjectName, Verdict]:
    return {problem.name: problem.verdict for problem in report.problems}


@pytest.mark.parametrize("mode", MODES)
def test_a_sound_repository_is_sound(
    tmp_path: Path, tree: Path, mode: RepoMode
) -> None:
    repo = make(tmp_path, tree, mode)
    seen = []
    report = fsck(repo, progress=lambda done, total: seen.append((done, total)))
    assert report == FsckReport(objects=6, commits=1)
    assert report.ok
    assert seen == [(6, 6)]


@pytest.mark.parametrize("fsync", ["true", "false"])
def test_a_damaged_file_is_removed_and_to_be_fetched(
    tmp_path: Path, tree: Path, fsync: str
) -> None:
    repo = make(tmp_path, tree)
    repo = Repo.open(repo.path, {"fsync": fsync})
    name = name_at(repo, "/d/file")
    victim = put(repo, name, b"damage")
    commit = repo.resolve("main")
    (problem,) = fsck(repo).problems
    assert (problem.name, problem.verdict) == (name, Verdict.DAMAGED)
    assert problem.places == (Place(commit, "/d/file"), Place(commit, "/d/same"))
    assert problem.commits == (commit,)
    assert problem.deployed == ()
    assert victim.exists()
    assert not repo.is_partial(commit)
    assert fsck(repo, repair=True).fetch == (name,)
    assert not victim.exists()
    assert Path(repo.partial_path(commit)).read_bytes() == b"f"
    after = fsck(repo)
    assert after.ok
    assert (after.commits, after.partial) == (0, (commit,))


def test_a_sound_repository_is_not_touched_by_a_repair(
    tmp_path: Path, tree: Path
) -> None:
    repo = make(tmp_path, tree)
    with repo.lock(exclusive=True):
        assert fsck(repo, repair=True).ok


def test_a_missing_object_is_to_be_fetched(tmp_path: Path, tree: Path) -> None:
    repo = make(tmp_path, tree)
    name = name_at(repo, "/d")
    os.unlink(repo.object_path(name))
    report = fsck(repo, repair=True)
    assert verdicts(report) == {name: Verdict.MISSING}
    assert report.fetch == (name,)
    assert repo.is_partial(repo.resolve("main"))


def test_a_damaged_commit_makes_its_ref_dangle(tmp_path: Path, tree: Path) -> None:
    repo = make(tmp_path, tree)
    commit = repo.resolve("main")
    name = ObjectName(commit, ObjectType.COMMIT)
    put(repo, name, b"damage")
    report = fsck(repo, repair=True)
    assert report.fetch == (name,)
    assert report.problems[0].places == (Place(commit, "/"),)
    after = fsck(repo)
    assert after.dangling == (("heads/main", commit),)
    assert not after.ok


def test_a_well_named_object_that_nobody_should_have_made_stays(
    tmp_path: Path, tree: Path
) -> None:
    repo = make(tmp_path, tree)
    data = DirTree(files=(("../escape", A),)).serialize()
    name = ObjectName(checksum_of(data), ObjectType.DIRTREE)
    path = put(repo, name, data)
    commit = Commit(
        root_dirtree=name.checksum,
        root_dirmeta=repo.load_commit(repo.resolve("main")).root_dirmeta,
        timestamp=2,
    ).serialize()
    put(repo, ObjectName(checksum_of(commit), ObjectType.COMMIT), commit)
    report = fsck(repo, repair=True)
    assert verdicts(report) == {name: Verdict.INVALID}
    assert report.problems[0].places == (Place(checksum_of(commit), "/"),)
    assert report.fetch == ()
    assert path.exists()


def test_a_file_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path, tree, RepoMode.BARE_USER)
    name = name_at(repo, "/d/file")
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if path == repo.object_path(name):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    report = fsck(repo, repair=True)
    assert verdicts(report) == {name: Verdict.UNREADABLE}
    assert os.path.exists(repo.object_path(name))


@pytest.mark.parametrize(
    "number, verdict", [(5, Verdict.DAMAGED), (24, Verdict.UNREADABLE)]
)
def test_only_a_failing_disk_is_damage(
    tmp_path: Path,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    verdict: Verdict,
) -> None:
    repo = make(tmp_path, tree, RepoMode.BARE_USER)
    name = name_at(repo, "/d/file")

    def fail(_fd: int, _size: int) -> bytes:
        raise OSError(number, "failed")

    monkeypatch.setattr(os, "read", fail)
    assert check_object(repo, name) == Finding(name, verdict, "failed")


@pytest.mark.parametrize(
    "kind",
    [
        ObjectType.COMMITMETA,
        ObjectType.TOMBSTONE_COMMIT,
        ObjectType.FILE_XATTRS_LINK,
    ],
)
def test_metadata_without_a_checksum_must_parse(
    tmp_path: Path, tree: Path, kind: ObjectType
) -> None:
    repo = make(tmp_path, tree)
    name = ObjectName(repo.resolve("main"), kind)
    assert check_object(repo, name) is None
    put(repo, name, b"")
    assert check_object(repo, name) is None
    put(repo, name, b"damage")
    finding = check_object(repo, name)
    assert finding is not None
    assert finding.verdict is Verdict.DAMAGED


def test_separate_xattrs_have_a_checksum(tmp_path: Path, tree: Path) -> None:
    repo = make(tmp_path, tree)
    data = codec("a(ayay)").encode(((b"user.a\0", b"1"),))
    name = ObjectName(checksum_of(data), ObjectType.FILE_XATTRS)
    put(repo, name, data)
    assert check_object(repo, name) is None
    put(repo, name, data + b"x")
    assert check_object(repo, name) is not None


def test_a_file_whose_separate_xattrs_are_gone_is_damaged(tmp_path: Path) -> None:
    Repo.init(tmp_path / "repo", RepoMode.BARE)
    repo = Repo.open(tmp_path / "repo", {"mode": "bare-split-xattrs"})
    name = ObjectName(A, ObjectType.FILE)
    put(repo, name, b"content")
    finding = check_object(repo, name)
    assert finding is not None
    assert finding.verdict is Verdict.DAMAGED


def test_what_is_no_object_of_its_own_is_passed_over(
    tmp_path: Path, tree: Path
) -> None:
    repo = make(tmp_path, tree)
    name = ObjectName(A, ObjectType.PAYLOAD_LINK)
    put(repo, name, b"")
    assert check_object(repo, name) is None


@pytest.mark.parametrize("kind", list(ObjectType))
def test_an_object_that_vanishes_meanwhile_is_not_wrong(
    tmp_path: Path, tree: Path, kind: ObjectType
) -> None:
    assert check_object(make(tmp_path, tree), ObjectName(A, kind)) is None


def test_a_commit_that_vanishes_meanwhile_is_not_wrong(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path, tree)
    names = [*repo.all_objects(), ObjectName(A, ObjectType.COMMIT)]
    monkeypatch.setattr(Repo, "all_objects", lambda _self: iter(names))
    assert fsck(repo).ok


def test_refs_for_which_a_commit_was_not_made_are_told(
    tmp_path: Path, tree: Path
) -> None:
    repo = make(tmp_path, tree)
    commit = repo.resolve("main")
    for ref in ("other", "ostree/0/1/0", "p2p/keep/main"):
        repo.refs.set(head(ref), commit)
    assert fsck(repo).unbound == ("heads/other",)
    repo.refs.set(head("gone"), A)
    assert fsck(repo).unbound == ("heads/other",)


@pytest.mark.parametrize(
    "bound, own, told",
    [
        ("org.a.B", "org.a.B", False),
        ("org.a.B", "org.c.D", True),
        ("org.a.B", None, False),
        (None, "org.a.B", False),
    ],
)
def test_collections_for_which_a_commit_was_not_made_are_told(
    tmp_path: Path, tree: Path, bound: str | None, own: str | None, told: bool
) -> None:
    repo = Repo.init(tmp_path / "repo", RepoMode.ARCHIVE)
    metadata = (("ostree.collection-binding", Variant("s", bound)),) if bound else ()
    options = CommitOptions(branch="main", timestamp=1, metadata=metadata)
    commit_tree(repo, tree, options)
    repo = Repo.open(repo.path, {"collection-id": own} if own else {})
    assert bool(fsck(repo).unbound) is told


def test_the_deployments_that_hold_a_damaged_file_are_named(
    tmp_path: Path, tree: Path
) -> None:
    (tmp_path / "ostree").mkdir()
    repo = make(tmp_path / "ostree", tree, RepoMode.BARE_USER)
    commit = repo.resolve("main")
    name = name_at(repo, "/d/file")
    deployment = tmp_path / f"ostree/deploy/os/deploy/{commit}.0"
    (deployment / "d").mkdir(parents=True)
    os.link(repo.object_path(name), deployment / "d/file")
    (deployment / "d/same").write_bytes(b"a copy")
    # Nothing of this one is there.
    (tmp_path / f"ostree/deploy/os/deploy/{commit}.1").mkdir()
    (tmp_path / f"ostree/deploy/os/deploy/{commit}.1/d").touch()
    (tmp_path / f"ostree/deploy/os/deploy/{A}.0").mkdir()
    with open(repo.object_path(name), "r+b") as file:
        file.write(b"damage")
    (problem,) = fsck(repo, repair=True).problems
    assert problem.deployed == (str(deployment / "d/file"),)
    assert (deployment / "d/file").read_bytes() == b"damaget"
