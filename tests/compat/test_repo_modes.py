"""Repositories of every mode that `ostree` wrote, read byte for byte."""

import os
import stat
import sys
from pathlib import Path

import pytest

from p2p.errors import PathNotFoundError
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum, FileHeader, ObjectName, ObjectType
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from p2p.ostree.tree import DirEntry, FileEntry, find, inode, list_tree
from tests.oracle import Ostree, split_xattrs_repo
from tests.trees import canonical_tree, nasty_tree, small_tree
from tests.unprivileged import Unprivileged

MODES = (
    "archive",
    pytest.param("bare", marks=pytest.mark.root),
    "bare-user",
    "bare-user-only",
    pytest.param("bare-split-xattrs", marks=pytest.mark.root),
)
ROOT = os.geteuid() == 0


def make(path: Path, mode: str) -> tuple[Ostree, Path]:
    """A repository with the nastiest tree the mode can hold, and that tree."""
    tree = path / "tree"
    if mode == "bare-user-only":
        canonical_tree(tree)
    else:
        nasty_tree(tree, root=ROOT)
    written = "bare" if mode == "bare-split-xattrs" else mode
    stock = Ostree.init(path / written, written)
    stock.commit(tree, "main")
    if mode == "bare-split-xattrs":
        split_xattrs_repo(stock.repo, path / mode)
        stock = Ostree(path / mode)
    return stock, tree


def listing(repo: Repo, rev: str) -> str:
    """A commit as `ostree ls -R -C` prints it."""
    lines = []
    for entry in list_tree(repo, find(repo, repo.resolve(rev)), recursive=True):
        meta, size = inode(repo, entry)
        kind = {stat.S_IFDIR: "d", stat.S_IFLNK: "l"}.get(stat.S_IFMT(meta.mode), "-")
        sums, target = _sums(entry), ""
        if isinstance(meta, FileHeader) and meta.is_symlink:
            target = f" -> {meta.symlink_target}"
        lines.append(
            f"{kind}{stat.S_IMODE(meta.mode):05o} {meta.uid} {meta.gid} "
            f"{size:6} {sums} {entry.path}{target}\n"
        )
    return "".join(lines)


def _sums(entry: DirEntry | FileEntry) -> str:
    if isinstance(entry, FileEntry):
        return entry.checksum
    return f"{entry.tree} {entry.meta}"


@pytest.mark.parametrize("mode", MODES)
def test_every_object_is_read_and_has_its_checksum(tmp_path: Path, mode: str) -> None:
    stock, _ = make(tmp_path, mode)
    repo = Repo.open(stock.repo)
    assert repo.config.mode is RepoMode.parse(mode, where="test")
    names = list(repo.all_objects())
    files = [name for name in names if name.type is ObjectType.FILE]
    assert len(files) > 50
    for name in names:
        if name.type is ObjectType.FILE:
            with repo.open_content(name.checksum) as reader:
                assert reader.checksum() == name.checksum
        elif name.type <= ObjectType.COMMIT:
            repo.load_metadata(name)


@pytest.mark.parametrize("mode", MODES)
def test_a_commit_lists_as_ostree_lists_it(tmp_path: Path, mode: str) -> None:
    stock, _ = make(tmp_path, mode)
    theirs = stock.run("ls", "-R", "-C", "main")
    # `ostree ls` prints sizes of links as 0, whatever the mode.
    assert listing(Repo.open(stock.repo), "main") == theirs


@pytest.mark.parametrize("mode", MODES)
def test_content_and_xattrs_are_those_of_the_tree(tmp_path: Path, mode: str) -> None:
    stock, tree = make(tmp_path, mode)
    repo = Repo.open(stock.repo)
    seen = 0
    for entry in list_tree(repo, find(repo, repo.resolve("main")), recursive=True):
        path = tree / entry.path[1:]
        meta, _ = inode(repo, entry)
        if mode != "bare-user-only":
            expected = {
                os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            assert dict(meta.xattrs) == {k: v for k, v in expected.items() if v}
        if isinstance(entry, FileEntry) and not path.is_symlink():
            with repo.open_content(entry.checksum) as reader:
                assert b"".join(reader.content()) == path.read_bytes()
        seen += 1
    assert seen > 100


@pytest.mark.parametrize("mode", ["archive", "bare-user", "bare-user-only"])
def test_an_ordinary_user_reads_what_it_wrote(
    tmp_path: Path, mode: str, ordinary_user: Unprivileged
) -> None:
    home = ordinary_user.home
    small_tree(home / "tree")
    stock = Ostree.init(home / "repo", mode, prefix=ordinary_user.prefix)
    stock.commit(home / "tree", "main")
    program = (
        "import sys; from tests.compat.test_repo_modes import *; "
        "print(listing(Repo.open(sys.argv[1]), 'main'), end='')"
    )
    done = ordinary_user.run(sys.executable, "-c", program, stock.repo)
    assert done.stdout == stock.run("ls", "-R", "-C", "main")


def test_refs_are_resolved_as_by_ostree(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    small_tree(tmp_path / "tree")
    for number in range(3):
        stock.commit(tmp_path / "tree", "os/main", timestamp=number)
    stock.run("refs", "--create=far:only/there", "os/main^")
    stock.run("refs", "--alias", "--create=alias", "os/main")
    repo = Repo.open(stock.repo)
    head = stock.rev_parse("os/main")
    for rev in ("os/main", "os/main^", "os/main^^", head, f"{head}^", "alias"):
        assert repo.resolve(rev) == stock.rev_parse(rev)
    for rev in ("far:only/there", "only/there"):
        assert repo.resolve(rev) == stock.rev_parse(rev)
    assert dict(repo.refs.all()) == {
        "heads/alias": head,
        "heads/os/main": head,
        "remotes/far/only/there": stock.rev_parse("os/main^"),
    }


def test_a_ref_set_through_an_alias_moves_what_it_stands_for(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    small_tree(tmp_path / "tree")
    first = stock.commit(tmp_path / "tree", "main", timestamp=1)
    second = stock.commit(tmp_path / "tree", "main", timestamp=2)
    stock.run("refs", "--alias", "--create=alias", "main")
    repo = Repo.open(stock.repo)
    repo.refs.set(RefPath("heads/alias"), Checksum(first))
    assert stock.rev_parse("main") == stock.rev_parse("alias") == first != second


def test_a_path_is_found_as_by_ostree(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    small_tree(tmp_path / "tree")
    commit = Checksum(stock.commit(tmp_path / "tree", "main"))
    repo = Repo.open(stock.repo)
    for path in ("/usr/bin/hello", "usr/bin/hello", "/usr/bin", "/"):
        found = find(repo, commit, path)
        assert _sums(found) in stock.run("ls", "-d", "-C", "main", path)
    for path in ("/nowhere", "/usr/bin/hello/x", "/usr/../usr", "/bin/hello"):
        with pytest.raises(PathNotFoundError, match="there is no"):
            find(repo, commit, path)
        assert stock.try_run("ls", "main", path).returncode


def test_detached_metadata_and_tombstones_are_read(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "archive")
    small_tree(tmp_path / "tree")
    noted = stock.commit(
        tmp_path / "tree", "main", "--add-detached-metadata-string=a=b"
    )
    plain = stock.commit(tmp_path / "tree", "main")
    repo = Repo.open(stock.repo)
    assert repo.load_commitmeta(Checksum(plain)) is None
    assert b"a\0" in (repo.load_commitmeta(Checksum(noted)) or b"")
    stock.run("prune", f"--delete-commit={noted}")
    assert repo.is_tombstoned(Checksum(noted))
    assert not repo.has(ObjectName(Checksum(noted), ObjectType.COMMIT))
