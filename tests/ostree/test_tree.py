"""Looking around in a commit."""

from pathlib import Path

import pytest

from p2p.errors import ObjectNotFoundError, PathNotFoundError
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum, DirMeta, FileHeader
from p2p.ostree.repo import Repo
from p2p.ostree.source import SourceOptions
from p2p.ostree.tree import DirEntry, FileEntry, find, inode, list_tree


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    top = tmp_path / "tree"
    (top / "d/e").mkdir(parents=True)
    (top / "d/file").write_bytes(b"content")
    (top / "d/link").symlink_to("file")
    (top / "z").touch()
    made = Repo.init(tmp_path / "repo", RepoMode.ARCHIVE)
    options = SourceOptions(canonical_permissions=True)
    commit_tree(made, top, CommitOptions(branch="main"), options)
    return made


def paths(repo: Repo, path: str, *, recursive: bool) -> list[str]:
    start = find(repo, repo.resolve("main"), path)
    return [entry.path for entry in list_tree(repo, start, recursive=recursive)]


def test_files_come_before_directories(repo: Repo) -> None:
    everything = ["/", "/z", "/d", "/d/file", "/d/link", "/d/e"]
    assert paths(repo, "/", recursive=True) == everything
    assert paths(repo, "/", recursive=False) == ["/", "/z", "/d"]
    assert paths(repo, "d", recursive=True) == ["/d", "/d/file", "/d/link", "/d/e"]
    assert paths(repo, "/d/file", recursive=True) == ["/d/file"]


def test_a_path_is_found_however_it_is_written(repo: Repo) -> None:
    commit = repo.resolve("main")
    expected = find(repo, commit, "/d/file")
    assert isinstance(expected, FileEntry)
    for path in ("d/file", "//d//file", "./d/./file", "/d/file/"):
        assert find(repo, commit, path) == expected
    assert isinstance(find(repo, commit), DirEntry)


@pytest.mark.parametrize("path", ["/no", "/d/no", "/d/file/x", "/d/link/x", "/.."])
def test_what_is_not_there_is_an_error(repo: Repo, path: str) -> None:
    with pytest.raises(PathNotFoundError, match="there is no"):
        find(repo, repo.resolve("main"), path)


def test_inodes_are_told(repo: Repo) -> None:
    commit = repo.resolve("main")
    file, link = FileHeader(0, 0, 0o100644), FileHeader(0, 0, 0o120777, "file")
    assert inode(repo, find(repo, commit, "/d/file")) == (file, 7)
    assert inode(repo, find(repo, commit, "/d/link")) == (link, 0)
    assert inode(repo, find(repo, commit, "/d")) == (DirMeta(0, 0, 0o040755), 0)


def test_a_commit_that_is_not_there_is_an_error(repo: Repo) -> None:
    with pytest.raises(ObjectNotFoundError):
        find(repo, Checksum("a" * 64))
