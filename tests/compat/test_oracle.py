"""The oracle itself: right about repositories of stock ostree in every mode."""

import os
import shutil
from pathlib import Path

import pytest

from tests.oracle import (
    Ostree,
    OstreeError,
    closure,
    dangling,
    differences,
    snapshot,
    split_xattrs_repo,
    walk_objects,
)
from tests.oracle.variant import VariantError, read
from tests.require import INSTALLED_TESTS, require
from tests.trees import canonical_tree, nasty_tree, small_tree

MODES = ("archive", "bare", "bare-user", "bare-user-only")
CANONICAL = "--canonical-permissions"


def make_repo(tmp_path: Path, mode: str) -> tuple[Ostree, str]:
    """A repository with the nastiest tree the mode can hold, and its commit."""
    stock = Ostree.init(tmp_path / "repo", mode)
    tree = tmp_path / "tree"
    if mode == "bare-user-only":
        canonical_tree(tree)
        return stock, stock.commit(tree, "main", CANONICAL)
    nasty_tree(tree, root=os.geteuid() == 0)
    return stock, stock.commit(tree, "main")


@pytest.mark.parametrize("mode", MODES)
def test_every_object_that_ostree_wrote_is_recomputed(
    tmp_path: Path, mode: str
) -> None:
    stock, commit = make_repo(tmp_path, mode)
    stock.fsck()
    report = walk_objects(stock.repo)
    assert report.problems == ()
    reached = closure(stock.repo, commit)
    assert reached.missing == frozenset()
    assert len(reached.reachable) == report.checked > 100
    assert dangling(stock.repo) == []


@pytest.mark.root
def test_split_xattrs_are_read_from_beside_the_file(tmp_path: Path) -> None:
    bare, _ = make_repo(tmp_path, "bare")
    split_xattrs_repo(bare.repo, tmp_path / "split")
    stock = Ostree(tmp_path / "split")
    stock.fsck()
    assert stock.ls("main") == bare.ls("main")
    report = walk_objects(stock.repo)
    assert report.problems == ()
    assert report.checked > walk_objects(bare.repo).checked


@pytest.mark.root
def test_split_xattrs_repository_of_upstream_is_read(tmp_path: Path) -> None:
    require("ostree-tests")
    shutil.unpack_archive(INSTALLED_TESTS / "bare-split-xattrs-basic.tar.xz", tmp_path)
    report = walk_objects(tmp_path / "repo")
    assert report.problems == ()
    assert report.checked == 11


@pytest.mark.parametrize("mode", MODES)
def test_one_flipped_bit_is_found_in_every_kind_of_object(
    tmp_path: Path, mode: str
) -> None:
    stock, _ = make_repo(tmp_path, mode)
    for extension in ("commit", "dirtree", "dirmeta", "file*"):
        found = (stock.repo / "objects").rglob(f"*.{extension}")
        victim = max((p for p in found if not p.is_symlink()), key=size_of)
        damage = bytearray(victim.read_bytes())
        damage[len(damage) // 2] ^= 1
        victim.chmod(0o644)
        victim.write_bytes(damage)
    report = walk_objects(stock.repo)
    assert len(report.problems) == 4
    with pytest.raises(OstreeError):
        stock.fsck()


def size_of(path: Path) -> int:
    return path.lstat().st_size


@pytest.mark.root
def test_changed_permission_of_a_bare_object_is_found(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "bare")
    small_tree(tmp_path / "tree")
    stock.commit(tmp_path / "tree", "main")
    victim = next((stock.repo / "objects").rglob("*.file"))
    os.lchown(victim, 1, 1)
    (problem,) = walk_objects(stock.repo).problems
    assert victim.stem in problem


def test_changed_attribute_of_a_bare_user_object_is_found(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "bare-user")
    small_tree(tmp_path / "tree")
    stock.commit(tmp_path / "tree", "main")
    victim = next((stock.repo / "objects").rglob("*.file"))
    meta = bytearray(os.getxattr(victim, "user.ostreemeta"))
    meta[3] ^= 1
    os.setxattr(victim, "user.ostreemeta", bytes(meta))
    (problem,) = walk_objects(stock.repo).problems
    assert victim.stem in problem


def test_trailing_bytes_of_a_compressed_object_are_found(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    small_tree(tmp_path / "tree")
    stock.commit(tmp_path / "tree", "main")
    victim = max((stock.repo / "objects").rglob("*.filez"), key=size_of)
    with victim.open("ab") as file:
        file.write(b"\0")
    (problem,) = walk_objects(stock.repo).problems
    assert "followed by more" in problem


def test_objects_in_the_stage_are_recomputed_too(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    small_tree(tmp_path / "tree")
    stock.commit(tmp_path / "tree", "main")
    batch = stock.repo / "extensions/p2p/stage/objects/00"
    batch.mkdir(parents=True)
    (batch / f"{'1' * 62}.dirmeta").write_bytes(bytes(12))
    (problem,) = walk_objects(stock.repo).problems
    assert "extensions/p2p/stage" in problem


def test_strange_file_among_the_objects_is_found(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    (stock.repo / "objects/ab").mkdir()
    (stock.repo / "objects/ab/left-over.tmp").write_bytes(b"")
    (problem,) = walk_objects(stock.repo).problems
    assert "left-over.tmp" in problem


def test_missing_object_is_named_and_makes_the_commit_dangle(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    small_tree(tmp_path / "tree")
    commit = stock.commit(tmp_path / "tree", "main")
    victim = next((stock.repo / "objects").rglob("*.filez"))
    victim.unlink()
    name = victim.parent.name + victim.name
    assert closure(stock.repo, commit).missing == {name}
    (problem,) = dangling(stock.repo)
    assert name in problem
    (stock.repo / "state" / f"{commit}.commitpartial").touch()
    assert dangling(stock.repo) == []


def test_ref_to_an_absent_commit_dangles(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    (stock.repo / "refs/heads/gone").write_text("0" * 64 + "\n")
    (problem,) = dangling(stock.repo)
    assert "refs/heads/gone" in problem


@pytest.mark.parametrize("mode", MODES)
def test_equal_pulls_have_equal_snapshots(tmp_path: Path, mode: str) -> None:
    source, _ = make_repo(tmp_path, mode)
    first, second = (Ostree.init(tmp_path / n, mode) for n in ("first", "second"))
    for stock in (first, second):
        stock.pull_local(source.repo, "main")
    assert differences(snapshot(first.repo), snapshot(second.repo)) == []


def test_difference_names_the_object_and_what_differs(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "bare-user")
    small_tree(tmp_path / "tree")
    stock.commit(tmp_path / "tree", "main")
    before = snapshot(stock.repo)
    victim = next((stock.repo / "objects").rglob("*.file"))
    victim.chmod(0o755 if victim.stat().st_mode & 0o777 != 0o755 else 0o700)
    os.setxattr(victim, "user.extra", b"1")
    lost = next((stock.repo / "objects").rglob("*.dirtree"))
    lost.unlink()
    lines = differences(before, snapshot(stock.repo))
    assert [line.split(" ")[1] for line in lines] == ["missing", "mode", "xattrs"]


def test_failure_of_ostree_shows_what_it_said(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    with pytest.raises(OstreeError, match="Refspec 'nothing' not found"):
        stock.rev_parse("nothing")


@pytest.mark.parametrize(
    "kind,data",
    [("u", b"123"), ("s", b"no end"), ("as", b"\0\x09"), ("(su)", b""), ("v", b"")],
)
def test_broken_variant_is_refused(kind: str, data: bytes) -> None:
    with pytest.raises(VariantError):
        read(kind, data)
