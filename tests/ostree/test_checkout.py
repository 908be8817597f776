"""Checkouts: complete or not there, verified, and only where they belong."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from p2p.errors import (
    DamagedObjectError,
    LimitError,
    ObjectNotFoundError,
    PathNotFoundError,
    RepositoryError,
)
from p2p.ostree import checkout as checking_out
from p2p.ostree.checkout import CheckoutOptions, Links, Overwrite, checkout
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from p2p.ostree.source import SourceOptions
from p2p.ostree.tree import FileEntry, find
from tests.ostree.samples import MODES
from tests.require import require

USER = CheckoutOptions(user_mode=True)
ROOT = pytest.mark.root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "usr/bin").mkdir(parents=True)
    (top / "usr/bin/hello").write_bytes(b"#!/bin/sh\n" * 1000)
    (top / "usr/bin/hello").chmod(0o755)
    (top / "usr/bin/hi").symlink_to("hello")
    (top / "usr/empty").touch()
    (top / "etc").mkdir(mode=0o755)
    return top


def make(tmp_path: Path, tree: Path, mode: RepoMode) -> Repo:
    repo = Repo.init(tmp_path / "repo", mode)
    canonical = SourceOptions(canonical_permissions=mode is RepoMode.BARE_USER_ONLY)
    commit_tree(repo, tree, CommitOptions(branch="main"), canonical)
    return repo


def run(repo: Repo, target: Path, options: CheckoutOptions | None = None) -> None:
    checkout(repo, repo.resolve("main"), target, options)


def object_of(repo: Repo, path: str) -> Path:
    entry = find(repo, repo.resolve("main"), path)
    assert isinstance(entry, FileEntry)
    prefix = Path(repo.objects, entry.checksum[:2])
    (found,) = prefix.glob(f"{entry.checksum[2:]}.file*")
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fsync", [True, False])
def test_the_tree_is_there_as_it_was(
    tmp_path: Path, tree: Path, mode: RepoMode, fsync: bool
) -> None:
    repo = make(tmp_path, tree, mode)
    run(repo, tmp_path / "out", CheckoutOptions(user_mode=True, fsync=fsync))
    for path in (".", "usr", "usr/bin", "etc", "usr/bin/hello", "usr/empty"):
        ours, theirs = tmp_path / "out" / path, tree / path
        assert stat.filemode(ours.stat().st_mode) == stat.filemode(
            theirs.stat().st_mode
        )
        if ours.is_dir():
            assert ours.stat().st_mtime == 0
        else:
            assert ours.read_bytes() == theirs.read_bytes()
    assert (tmp_path / "out/usr/bin/hi").readlink() == Path("hello")
    assert sorted(os.listdir(tmp_path)) == ["out", "repo", "tree"]


@pytest.mark.parametrize(
    "mode, options, linked",
    [
        (RepoMode.BARE_USER, USER, True),
        (RepoMode.BARE_USER_ONLY, CheckoutOptions(), True),
        (RepoMode.BARE_USER_ONLY, USER, True),
        (RepoMode.ARCHIVE, USER, False),
        (
            RepoMode.BARE_USER,
            CheckoutOptions(user_mode=True, links=Links.NEVER),
            False,
        ),
        pytest.param(RepoMode.BARE, CheckoutOptions(), True, marks=ROOT),
        pytest.param(RepoMode.BARE, USER, False, marks=ROOT),
        pytest.param(RepoMode.BARE_USER, CheckoutOptions(), False, marks=ROOT),
    ],
)
def test_files_are_links_where_the_repository_keeps_them_so(
    tmp_path: Path, tree: Path, mode: RepoMode, options: CheckoutOptions, linked: bool
) -> None:
    repo = make(tmp_path, tree, mode)
    run(repo, tmp_path / "out", options)
    theirs = object_of(repo, "/usr/bin/hello").stat()
    assert ((tmp_path / "out/usr/bin/hello").stat().st_ino == theirs.st_ino) is linked
    # An empty file would soon have more names than a filesystem allows.
    assert (tmp_path / "out/usr/empty").stat().st_nlink == 1


@pytest.mark.parametrize(
    "mode, user_mode",
    [
        (RepoMode.ARCHIVE, True),
        (RepoMode.BARE_USER, False),
        pytest.param(RepoMode.BARE, True, marks=ROOT),
    ],
)
def test_required_links_that_cannot_be_are_an_error(
    tmp_path: Path, tree: Path, mode: RepoMode, user_mode: bool
) -> None:
    repo = make(tmp_path, tree, mode)
    options = CheckoutOptions(user_mode=user_mode, links=Links.REQUIRE)
    with pytest.raises(RepositoryError, match="cannot be linked to"):
        run(repo, tmp_path / "out", options)
    assert sorted(os.listdir(tmp_path)) == ["repo", "tree"]


@pytest.mark.parametrize("links, works", [(Links.ALLOW, True), (Links.REQUIRE, False)])
def test_where_the_filesystem_refuses_links_files_are_copied_if_they_may(
    tmp_path: Path,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    links: Links,
    works: bool,
) -> None:
    repo = make(tmp_path, tree, RepoMode.BARE_USER)

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    options = CheckoutOptions(user_mode=True, links=links)
    if works:
        run(repo, tmp_path / "out", options)
        assert (tmp_path / "out/usr/bin/hello").stat().st_nlink == 1
    else:
        with pytest.raises(RepositoryError, match="cross-device"):
            run(repo, tmp_path / "out", options)
        assert not (tmp_path / "out").exists()


def test_a_disk_error_while_linking_is_an_error(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path, tree, RepoMode.BARE_USER)

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(RepositoryError, match="Input/output"):
        run(repo, tmp_path / "out", USER)


def test_an_existing_destination_is_refused_untouched(
    tmp_path: Path, tree: Path
) -> None:
    repo = make(tmp_path, tree, RepoMode.ARCHIVE)
    (tmp_path / "out").mkdir()
    with pytest.raises(RepositoryError, match="exists already") as caught:
        run(repo, tmp_path / "out", USER)
    assert "--union" in caught.value.hint
    assert os.listdir(tmp_path / "out") == []
    with pytest.raises(RepositoryError, match="No such file"):
        run(repo, tmp_path / "no/parent", USER)


def corrupt(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("harm", [corrupt, shorten])
@pytest.mark.parametrize("mode", [RepoMode.ARCHIVE, RepoMode.BARE_USER_ONLY])
def test_a_damaged_file_is_not_copied(
    tmp_path: Path, tree: Path, mode: RepoMode, harm: Callable[[Path], None]
) -> None:
    repo = make(tmp_path, tree, mode)
    harm(object_of(repo, "/usr/bin/hello"))
    options = CheckoutOptions(user_mode=True, links=Links.NEVER)
    with pytest.raises(DamagedObjectError, match="object"):
        run(repo, tmp_path / "out", options)
    assert sorted(os.listdir(tmp_path)) == ["repo", "tree"]


def test_a_damaged_link_is_not_made(tmp_path: Path, tree: Path) -> None:
    repo = make(tmp_path, tree, RepoMode.BARE_USER_ONLY)
    victim = object_of(repo, "/usr/bin/hi")
    victim.unlink()
    victim.symlink_to("elsewhere")
    with pytest.raises(DamagedObjectError, match="has the checksum"):
        run(repo, tmp_path / "out", USER)


def test_a_missing_object_is_an_error_and_nothing_appears(
    tmp_path: Path, tree: Path
) -> None:
    repo = make(tmp_path, tree, RepoMode.BARE_USER)
    object_of(repo, "/usr/bin/hello").unlink()
    with pytest.raises(ObjectNotFoundError):
        run(repo, tmp_path / "out", USER)
    with pytest.raises(ObjectNotFoundError):
        checkout(repo, Checksum("a" * 64), tmp_path / "out", USER)
    assert sorted(os.listdir(tmp_path)) == ["repo", "tree"]


def test_an_object_of_the_parent_repository_is_copied(
    tmp_path: Path, tree: Path
) -> None:
    parent = make(tmp_path, tree, RepoMode.BARE_USER)
    child = Repo.init(tmp_path / "child", RepoMode.BARE_USER)
    child = Repo.open(child.path, {"parent": parent.path})
    checkout(child, parent.resolve("main"), tmp_path / "out", USER)
    hello = (tmp_path / "out/usr/bin/hello").stat()
    assert hello.st_nlink == 1
    assert hello.st_size == 10_000


def test_a_subpath_may_be_a_directory_or_a_file(tmp_path: Path, tree: Path) -> None:
    repo = make(tmp_path, tree, RepoMode.ARCHIVE)
    run(repo, tmp_path / "d", CheckoutOptions(user_mode=True, subpath="usr"))
    assert sorted(os.listdir(tmp_path / "d")) == ["bin", "empty"]
    run(repo, tmp_path / "f", CheckoutOptions(user_mode=True, subpath="usr/bin/hello"))
    assert os.listdir(tmp_path / "f") == ["hello"]
    with pytest.raises(PathNotFoundError):
        run(repo, tmp_path / "x", CheckoutOptions(user_mode=True, subpath="no"))


def test_canonical_directories_have_no_odd_modes(tmp_path: Path, tree: Path) -> None:
    (tree / "etc").chmod(0o3777)
    repo = make(tmp_path, tree, RepoMode.ARCHIVE)
    options = CheckoutOptions(user_mode=True, canonical_dirs=True)
    run(repo, tmp_path / "out", options)
    assert stat.S_IMODE((tmp_path / "out/etc").stat().st_mode) == 0o775
    run(repo, tmp_path / "as-is", USER)
    assert stat.S_IMODE((tmp_path / "as-is/etc").stat().st_mode) == 0o3777


def test_a_user_mode_checkout_has_no_setuid_files(tmp_path: Path, tree: Path) -> None:
    (tree / "usr/bin/hello").chmod(0o6755)
    (tree / "usr/secret").write_bytes(b"x")
    (tree / "usr/secret").chmod(0o022)
    require("root")  # to read the file of mode 022
    repo = make(tmp_path, tree, RepoMode.BARE_USER)
    for links in (Links.ALLOW, Links.NEVER):
        out = tmp_path / links
        run(repo, out, CheckoutOptions(user_mode=True, links=links))
        assert stat.S_IMODE((out / "usr/bin/hello").stat().st_mode) == 0o755
        # The user can read it, and it is a copy.
        assert stat.S_IMODE((out / "usr/secret").stat().st_mode) == 0o422
        assert (out / "usr/secret").stat().st_nlink == 1


def test_names_that_the_filesystem_holds_for_equal_are_an_error(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path, tree, RepoMode.ARCHIVE)
    real = os.mkdir

    def fold_case(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real("etc" if path == "usr" else path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", fold_case)
    with pytest.raises(RepositoryError, match="File exists"):
        run(repo, tmp_path / "out", USER)
    assert not (tmp_path / "out").exists()


# -- unions ------------------------------------------------------------------


def old_tree(path: Path) -> Path:
    """A directory with files in the way of the commit's, and others."""
    (path / "usr/bin").mkdir(parents=True, mode=0o700)
    (path / "usr/bin/hello").write_text("old")
    (path / "usr/bin/hi").write_text("old")
    (path / "usr/empty").symlink_to("old")
    (path / "other").write_text("other")
    (path / "usr").chmod(0o711)
    return path


@pytest.mark.parametrize("mode", [RepoMode.ARCHIVE, RepoMode.BARE_USER])
@pytest.mark.parametrize("fsync", [True, False])
def test_a_union_overwrites_files_and_keeps_directories(
    tmp_path: Path, tree: Path, mode: RepoMode, fsync: bool
) -> None:
    repo = make(tmp_path, tree, mode)
    out = old_tree(tmp_path / "out")
    options = CheckoutOptions(user_mode=True, overwrite=Overwrite.UNION, fsync=fsync)
    for _ in range(2):
        run(repo, out, options)
    assert (out / "usr/bin/hello").stat().st_size == 10_000
    assert (out / "usr/bin/hi").readlink() == Path("hello")
    assert not (out / "usr/empty").is_symlink()
    assert (out / "other").read_text() == "other"
    assert stat.S_IMODE((out / "usr").stat().st_mode) == 0o711
    assert sorted(os.listdir(out / "usr/bin")) == ["hello", "hi"]


@pytest.mark.parametrize("overwrite", [Overwrite.UNION, Overwrite.UNION_ADD])
def test_a_union_may_start_from_nothing(
    tmp_path: Path, tree: Path, overwrite: Overwrite
) -> None:
    repo = make(tmp_path, tree, RepoMode.BARE_USER)
    run(repo, tmp_path / "out", CheckoutOptions(user_mode=True, overwrite=overwrite))
    assert (tmp_path / "out/usr/bin/hello").stat().st_nlink == 2
    assert (tmp_path / "out/usr").stat().st_mtime == 0


def test_a_union_may_also_keep_files(tmp_path: Path, tree: Path) -> None:
    repo = make(tmp_path, tree, RepoMode.BARE_USER)
    out = old_tree(tmp_path / "out")
    run(repo, out, CheckoutOptions(user_mode=True, overwrite=Overwrite.UNION_ADD))
    assert (out / "usr/bin/hello").read_text() == "old"
    assert (out / "usr/empty").is_symlink()
    assert (out / "etc").is_dir()


@pytest.mark.parametrize("mode", [RepoMode.ARCHIVE, RepoMode.BARE_USER])
def test_a_union_replaces_no_directory_by_a_file(
    tmp_path: Path, tree: Path, mode: RepoMode
) -> None:
    repo = make(tmp_path, tree, mode)
    (tmp_path / "out/usr/bin/hello").mkdir(parents=True)
    options = CheckoutOptions(user_mode=True, overwrite=Overwrite.UNION)
    with pytest.raises(RepositoryError, match="directory"):
        run(repo, tmp_path / "out", options)
    assert os.listdir(tmp_path / "out/usr/bin") == ["hello"]


def test_a_union_follows_no_link_out_of_its_directory(
    tmp_path: Path, tree: Path
) -> None:
    repo = make(tmp_path, tree, RepoMode.ARCHIVE)
    (tmp_path / "victim/bin").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/usr").symlink_to("../victim")
    options = CheckoutOptions(user_mode=True, overwrite=Overwrite.UNION)
    with pytest.raises(RepositoryError, match=r"directory|symbolic"):
        run(repo, tmp_path / "out", options)
    assert os.listdir(tmp_path / "victim/bin") == []


# -- owners and attributes ---------------------------------------------------


@ROOT
def test_owners_attributes_and_setuid_bits_are_restored(
    tmp_path: Path, tree: Path
) -> None:
    hello = tree / "usr/bin/hello"
    os.chown(hello, 5, 6)
    hello.chmod(0o4755)
    os.setxattr(hello, "trusted.a", b"1")
    os.lchown(tree / "usr/bin/hi", 7, 8)
    os.setxattr(tree / "usr/bin/hi", "trusted.b", b"2", follow_symlinks=False)
    os.chown(tree / "etc", 9, 10)
    os.setxattr(tree / "etc", "trusted.c", b"3")
    repo = make(tmp_path, tree, RepoMode.ARCHIVE)
    run(repo, tmp_path / "out")
    for path, name, value in (
        ("usr/bin/hello", "trusted.a", b"1"),
        ("usr/bin/hi", "trusted.b", b"2"),
        ("etc", "trusted.c", b"3"),
    ):
        ours, theirs = (tmp_path / "out" / path).lstat(), (tree / path).lstat()
        assert (ours.st_mode, ours.st_uid, ours.st_gid) == (
            theirs.st_mode,
            theirs.st_uid,
            theirs.st_gid,
        )
        found = os.getxattr(tmp_path / "out" / path, name, follow_symlinks=False)
        assert found == value


def test_giving_files_away_needs_root(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path, tree, RepoMode.ARCHIVE)

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(RepositoryError, match="only root may") as caught:
        run(repo, tmp_path / "out")
    assert "-U" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number, hint", [(95, "Run as root"), (28, "")])
def test_an_attribute_that_cannot_be_set_is_an_error_not_a_loss(
    tmp_path: Path,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    hint: str,
) -> None:
    os.setxattr(tree / "usr/bin/hello", "user.a", b"1")
    repo = make(tmp_path, tree, RepoMode.ARCHIVE)

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(RepositoryError, match="refused") as caught:
        run(repo, tmp_path / "out")
    assert hint in caught.value.hint


def test_a_commit_that_unfolds_without_end_is_refused(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path, tree, RepoMode.ARCHIVE)
    monkeypatch.setattr(checking_out, "MAX_PATHS", 4)
    with pytest.raises(LimitError, match="unfolds"):
        run(repo, tmp_path / "out", USER)
    assert not (tmp_path / "out").exists()
