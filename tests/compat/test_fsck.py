"""Our check against `ostree fsck`: what it finds we find, and more."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2p.ostree.check import Verdict
from p2p.ostree.fsck import FsckReport, fsck
from p2p.ostree.objects import Checksum, ObjectName, ObjectType, parse_object_path
from p2p.ostree.places import Place
from p2p.ostree.repo import Repo
from tests.oracle import Ostree, split_xattrs_repo, walk_objects
from tests.trees import canonical_tree, nasty_tree, os_tree, small_tree

MODES = ("archive", "bare", "bare-user", "bare-user-only")
ROOT = os.geteuid() == 0


def make(path: Path, mode: str) -> Ostree:
    """A repository with two commits of one small tree that differ in one file."""
    stock = Ostree.init(path / "repo", mode)
    tree = path / "tree"
    small_tree(tree)
    stock.commit(tree, "main", "--add-detached-metadata-string=a=b")
    (tree / "etc/hostname").write_text("changed\n")
    stock.commit(tree, "main", "--add-detached-metadata-string=a=b")
    return stock


def check(stock: Ostree, *, repair: bool = False) -> FsckReport:
    """Our report."""
    return fsck(Repo.open(stock.repo), repair=repair)


@pytest.mark.parametrize("mode", MODES)
def test_what_ostree_wrote_is_sound(tmp_path: Path, mode: str) -> None:
    stock = Ostree.init(tmp_path / "repo", mode)
    if mode == "bare-user-only":
        canonical_tree(tmp_path / "tree")
    else:
        nasty_tree(tmp_path / "tree", root=ROOT)
    stock.commit(tmp_path / "tree", "main")
    seen: list[tuple[int, int]] = []
    report = fsck(
        Repo.open(stock.repo), progress=lambda done, total: seen.append((done, total))
    )
    assert report.ok
    assert report.objects == walk_objects(stock.repo).checked
    assert report.commits == 1
    assert seen[-1] == (report.objects, report.objects)
    assert seen == sorted(seen)


@pytest.mark.root
def test_split_xattrs_are_sound_and_missed_when_they_are_gone(tmp_path: Path) -> None:
    bare = Ostree.init(tmp_path / "bare", "bare")
    nasty_tree(tmp_path / "tree", root=True)
    bare.commit(tmp_path / "tree", "main")
    split_xattrs_repo(bare.repo, tmp_path / "split")
    split = Ostree(tmp_path / "split")
    assert check(split).ok
    link = next((split.repo / "objects").rglob("*.file-xattrs-link"))
    link.unlink()
    (problem,) = check(split).problems
    assert problem.verdict is Verdict.DAMAGED
    assert problem.name.checksum[2:] in link.name


def path_of(stock: Ostree, path: str, *, meta: bool = False) -> Path:
    """The object file behind a path of the newest commit."""
    line = stock.run("ls", "-d", "-C", "main", path)
    sums = [word for word in line.split() if len(word) == 64]
    checksum = sums[-1 if meta else 0]
    extension = "dirmeta" if meta else "dirtree" if line[0] == "d" else "file*"
    (found,) = (stock.repo / f"objects/{checksum[:2]}").glob(
        f"{checksum[2:]}.{extension}"
    )
    return found


def name_of(path: Path) -> ObjectName:
    return parse_object_path(f"{path.parent.name}/{path.name}")


def flip(path: Path) -> None:
    """Change one bit in the middle, in place, as a failing disk does."""
    path.chmod(path.stat().st_mode | 0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    os.truncate(path, len(data))
    with path.open("r+b") as file:
        file.write(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("harm", [flip, truncate, empty])
def test_a_damaged_file_is_named_by_its_paths_and_fetched_again(
    tmp_path: Path, mode: str, harm: Callable[[Path], None]
) -> None:
    stock = make(tmp_path, mode)
    good = tmp_path / "good"
    shutil.copytree(stock.repo, good, symlinks=True)
    commits = sorted((stock.rev_parse("main"), stock.rev_parse("main^")))
    victim = path_of(stock, "/usr/share/same-1")
    harm(victim)
    assert stock.try_run("fsck", "--quiet").returncode
    report = check(stock)
    (problem,) = report.problems
    assert not report.ok
    assert problem.name == name_of(victim)
    assert problem.verdict is Verdict.DAMAGED
    assert set(problem.places) == {
        Place(Checksum(commit), f"/usr/share/{name}")
        for commit in commits
        for name in ("same-1", "same-2")
    }
    assert victim.exists()
    repaired = check(stock, repair=True)
    assert repaired.fetch == (problem.name,)
    assert not victim.exists()
    for commit in commits:
        assert (stock.repo / f"state/{commit}.commitpartial").read_bytes() == b"f"
    after = check(stock)
    assert after.ok
    assert after.partial == tuple(commits)
    for commit in commits:
        stock.pull_local(good, commit)
    assert check(stock) == check(Ostree(good))
    stock.fsck()


@pytest.mark.parametrize(
    "path, meta", [("/usr", False), ("/", False), ("/etc", True), ("/", True)]
)
def test_a_damaged_directory_is_found_and_fetched_again(
    tmp_path: Path, path: str, meta: bool
) -> None:
    stock = make(tmp_path, "archive")
    good = tmp_path / "good"
    shutil.copytree(stock.repo, good)
    victim = path_of(stock, path, meta=meta)
    flip(victim)
    report = check(stock, repair=True)
    assert [problem.name for problem in report.problems] == [name_of(victim)]
    assert path in {place.path for place in report.problems[0].places}
    assert report.fetch == (name_of(victim),)
    stock.pull_local(good, "main")
    stock.pull_local(good, stock.rev_parse("main^"))
    assert check(stock).ok


def test_a_damaged_commit_is_found_and_fetched_again(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    good = tmp_path / "good"
    shutil.copytree(stock.repo, good)
    head = stock.rev_parse("main")
    victim = stock.repo / f"objects/{head[:2]}/{head[2:]}.commit"
    flip(victim)
    report = check(stock, repair=True)
    assert report.fetch == (name_of(victim),)
    assert not victim.exists()
    (dangling,) = check(stock).dangling
    assert dangling == ("heads/main", head)
    stock.pull_local(good, "main")
    assert check(stock).ok


def test_damaged_detached_metadata_is_found(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    head = Checksum(stock.rev_parse("main"))
    victim = stock.repo / f"objects/{head[:2]}/{head[2:]}.commitmeta"
    victim.write_bytes(b"no dictionary")
    report = check(stock, repair=True)
    assert report.fetch == (ObjectName(head, ObjectType.COMMITMETA),)
    assert not victim.exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_object_is_found_in_complete_commits_only(
    tmp_path: Path, mode: str
) -> None:
    stock = make(tmp_path, mode)
    victim = path_of(stock, "/etc/hostname")
    name = name_of(victim)
    victim.unlink()
    (problem,) = check(stock).problems
    assert problem.verdict is Verdict.MISSING
    head = Checksum(stock.rev_parse("main"))
    assert problem.places == (Place(head, "/etc/hostname"),)
    assert check(stock, repair=True).fetch == (name,)
    ours = (stock.repo / f"state/{head}.commitpartial").read_bytes()
    (stock.repo / f"state/{head}.commitpartial").unlink()
    assert stock.try_run("fsck", "--quiet").returncode
    assert (stock.repo / f"state/{head}.commitpartial").read_bytes() == ours
    report = check(stock)
    assert report.ok
    assert report.partial == (head,)
    assert report.commits == 1


def test_a_missing_directory_hides_nothing_else(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    hostname = path_of(stock, "/etc/hostname")
    directory = path_of(stock, "/usr")
    hostname.unlink()
    directory.unlink()
    found = {problem.name for problem in check(stock).problems}
    assert found == {name_of(hostname), name_of(directory)}


def test_damage_that_no_commit_reaches_is_removed_and_not_fetched(
    tmp_path: Path,
) -> None:
    stock = make(tmp_path, "archive")
    victim = path_of(stock, "/etc/hostname")
    head = stock.rev_parse("main")
    stock.run("reset", "main", "main^")
    (stock.repo / f"objects/{head[:2]}/{head[2:]}.commit").unlink()
    flip(victim)
    stock.fsck()
    report = check(stock, repair=True)
    assert [problem.name for problem in report.problems] == [name_of(victim)]
    assert report.fetch == ()
    assert not victim.exists()


@pytest.mark.root
def test_a_wrong_owner_or_mode_is_damage_in_a_bare_repository(tmp_path: Path) -> None:
    stock = make(tmp_path, "bare")
    os.chown(path_of(stock, "/usr/bin/hello"), 5, 5)
    path_of(stock, "/etc/hostname").chmod(0o600)
    os.setxattr(path_of(stock, "/usr/lib/os-release"), "user.new", b"1")
    assert len(check(stock).problems) == 3


def test_a_bare_user_object_without_its_attribute_is_damage(tmp_path: Path) -> None:
    stock = make(tmp_path, "bare-user")
    os.removexattr(path_of(stock, "/etc/hostname"), "user.ostreemeta")
    (problem,) = check(stock).problems
    assert "user.ostreemeta" in problem.reason


def test_a_ref_without_its_commit_is_found(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    (stock.repo / "refs/heads/gone").write_text("a" * 64 + "\n")
    assert stock.try_run("fsck", "--quiet").returncode
    report = check(stock)
    assert report.dangling == (("heads/gone", "a" * 64),)
    assert not report.ok


def test_a_ref_whose_commit_is_for_another_is_told(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    stock.run("refs", "--create=other", "main")
    stock.run("refs", "--create=ostree/0/1/0", "main")
    assert stock.try_run("fsck", "--verify-bindings", "--quiet").returncode
    report = check(stock)
    assert report.unbound == ("heads/other",)
    assert report.ok


def test_a_ref_whose_commit_is_for_another_collection_is_told(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive", collection_id="org.example.Os")
    small_tree(tmp_path / "tree")
    stock.commit(tmp_path / "tree", "main")
    assert check(stock).unbound == ()
    config = stock.repo / "config"
    config.write_text(config.read_text().replace("org.example.Os", "org.example.No"))
    assert check(stock).unbound == ("heads/main",)


@pytest.mark.root
def test_the_deployments_that_hold_a_damaged_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "ostree").mkdir()
    stock = Ostree.init(tmp_path / "ostree/repo", "bare")
    os_tree(tmp_path / "tree", version="1")
    commit = stock.commit(tmp_path / "tree", "main")
    deployment = tmp_path / f"ostree/deploy/os/deploy/{commit}.0"
    deployment.parent.mkdir(parents=True)
    stock.checkout("main", deployment)
    (tmp_path / f"ostree/deploy/os/deploy/{'a' * 64}.0").mkdir()
    victim = path_of(stock, "/usr/bin/init")
    flip(victim)
    harmed = (deployment / "usr/bin/init").read_bytes()
    (problem,) = check(stock, repair=True).problems
    assert problem.deployed == (str(deployment / "usr/bin/init"),)
    # The running system's file is not touched: only its name in objects/ is gone.
    assert (deployment / "usr/bin/init").read_bytes() == harmed
    assert not victim.exists()
