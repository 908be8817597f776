"""Our checkouts against those of `ostree checkout`: same trees, same links."""

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2p.errors import RepositoryError
from p2p.ostree.checkout import CheckoutOptions, Links, Overwrite, checkout
from p2p.ostree.repo import Repo
from tests.oracle import Ostree, split_xattrs_repo
from tests.trees import canonical_tree, nasty_tree, small_tree
from tests.unprivileged import Unprivileged

MODES = ("archive", "bare", "bare-user", "bare-user-only")
ROOT = os.geteuid() == 0

OPTIONS = {
    "": CheckoutOptions(),
    "-U": CheckoutOptions(user_mode=True),
    "-C": CheckoutOptions(links=Links.NEVER),
    "-U -C": CheckoutOptions(user_mode=True, links=Links.NEVER),
    "-H": CheckoutOptions(links=Links.REQUIRE),
    "-U -H": CheckoutOptions(user_mode=True, links=Links.REQUIRE),
    "-U -M": CheckoutOptions(user_mode=True, canonical_dirs=True),
}


def describe(top: Path, objects: Path) -> Iterator[tuple[object, ...]]:
    """Every path of a tree with all that its inode says.

    Times are told apart as 1970 or not; links as being into the repository or not.
    """
    inodes = {
        entry.inode(): entry.name
        for folder in os.scandir(objects)
        for entry in os.scandir(folder.path)
    }
    paths = [top, *top.rglob("*")]
    for path in sorted(paths):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(path.readlink())
        else:
            content = b"" if path.is_dir() else path.read_bytes()
        names = sorted(os.listxattr(path, follow_symlinks=False))
        yield (
            str(path.relative_to(top)),
            stat.filemode(status.st_mode),
            status.st_uid,
            status.st_gid,
            hashlib.sha256(content).hexdigest(),
            [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names],
            status.st_mtime_ns == 0,
            inodes.get(status.st_ino),
        )


def same(theirs: Path, ours: Path, repo: Path) -> list[object]:
    """The paths that differ between two checkouts."""
    objects = repo / "objects"
    return list(
        set(map(repr, describe(theirs, objects)))
        ^ set(map(repr, describe(ours, objects)))
    )


def make_repo(path: Path, mode: str) -> Ostree:
    """A repository of stock ostree with the nastiest tree it can hold."""
    stock = Ostree.init(path / "repo", mode)
    tree = path / "source"
    if mode == "bare-user-only":
        canonical_tree(tree)
    else:
        nasty_tree(tree, root=ROOT)
    stock.commit(tree, "main")
    return stock


def ours(stock: Ostree, target: Path, options: CheckoutOptions) -> None:
    repo = Repo.open(stock.repo)
    checkout(repo, repo.resolve("main"), target, options)


def skip_uncompressed_cache(flags: str, mode: str) -> list[str]:
    """Stock ostree keeps unpacked copies of an archive's files; we do not."""
    return [*flags.split(), *(["--disable-cache"] if mode == "archive" else [])]


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flags", OPTIONS)
def test_the_tree_is_that_of_ostree(tmp_path: Path, mode: str, flags: str) -> None:
    stock = make_repo(tmp_path, mode)
    done = stock.try_run(
        "checkout", *skip_uncompressed_cache(flags, mode), "main", tmp_path / "theirs"
    )
    if done.returncode:
        assert "hardlink" in done.stderr
        with pytest.raises(RepositoryError, match="linked"):
            ours(stock, tmp_path / "ours", OPTIONS[flags])
        assert not (tmp_path / "ours").exists()
        return
    ours(stock, tmp_path / "ours", OPTIONS[flags])
    assert same(tmp_path / "theirs", tmp_path / "ours", stock.repo) == []


@pytest.mark.root
def test_split_xattrs_are_checked_out(tmp_path: Path) -> None:
    bare = make_repo(tmp_path, "bare")
    split_xattrs_repo(bare.repo, tmp_path / "split")
    split = Ostree(tmp_path / "split")
    ours(bare, tmp_path / "bare-out", CheckoutOptions(links=Links.NEVER))
    ours(split, tmp_path / "split-out", CheckoutOptions(links=Links.NEVER))
    assert same(tmp_path / "bare-out", tmp_path / "split-out", bare.repo) == []


@pytest.mark.parametrize("subpath", ["/links", "links/", "/sizes/one", "/names/files"])
def test_a_subpath_is_that_of_ostree(tmp_path: Path, subpath: str) -> None:
    stock = make_repo(tmp_path, "bare-user")
    stock.checkout(
        "main", tmp_path / "theirs", "-U", f"--subpath=/{subpath.strip('/')}"
    )
    options = CheckoutOptions(user_mode=True, subpath=subpath)
    ours(stock, tmp_path / "ours", options)
    assert same(tmp_path / "theirs", tmp_path / "ours", stock.repo) == []


@pytest.mark.parametrize("flag", ["--union", "--union-add"])
@pytest.mark.parametrize("mode", ["archive", "bare-user"])
def test_a_union_is_that_of_ostree(tmp_path: Path, mode: str, flag: str) -> None:
    stock = make_repo(tmp_path, mode)
    for name in ("theirs", "ours"):
        small_tree(tmp_path / name)
        (tmp_path / name / "sizes").mkdir(mode=0o711)
        (tmp_path / name / "sizes/one").write_text("was here")
        (tmp_path / name / "sizes/empty").symlink_to("was here")
        (tmp_path / name / "links").mkdir(mode=0o755)
        (tmp_path / name / "links/relative").write_text("was here")
    flags = skip_uncompressed_cache(f"-U {flag}", mode)
    for _ in range(2):
        stock.checkout("main", tmp_path / "theirs", *flags)
        options = CheckoutOptions(user_mode=True, overwrite=Overwrite(flag[2:]))
        ours(stock, tmp_path / "ours", options)
    assert same(tmp_path / "theirs", tmp_path / "ours", stock.repo) == []


@pytest.mark.parametrize("mode", ["archive", "bare-user", "bare-user-only"])
def test_an_ordinary_user_gets_the_tree_of_ostree(
    tmp_path: Path, mode: str, ordinary_user: Unprivileged
) -> None:
    home = ordinary_user.home
    tree = home / "source"
    if mode == "bare-user-only":
        canonical_tree(tree)
    else:
        nasty_tree(tree, root=False)
    stock = Ostree.init(home / "repo", mode, prefix=ordinary_user.prefix)
    stock.commit(tree, "main")
    stock.checkout("main", home / "theirs", *skip_uncompressed_cache("-U", mode))
    program = (
        "import sys; from tests.compat.test_checkout import *; "
        "ours(Ostree(Path(sys.argv[1])), Path(sys.argv[2]), OPTIONS['-U'])"
    )
    ordinary_user.run(sys.executable, "-c", program, stock.repo, home / "ours")
    assert same(home / "theirs", home / "ours", stock.repo) == []
