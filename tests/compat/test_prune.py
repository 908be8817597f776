"""Our prune against `ostree prune` on a copy: the same objects are left."""

import os
import re
import shutil
from pathlib import Path

import pytest

from p2p.errors import ObjectNotFoundError, RefNotFoundError, RepositoryError
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.prune import PruneOptions, PruneReport, prune
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from tests.oracle import Ostree, dangling, split_xattrs_repo
from tests.trees import change_files, random_tree

MODES = ("archive", "bare", "bare-user", "bare-user-only")
DAY = 86_400


def make(path: Path, mode: str) -> Ostree:
    """Two branches with histories that share content, and orphans."""
    stock = Ostree.init(path / "repo", mode)
    tree = path / "tree"
    random_tree(tree, seed=1, files=60, size=100_000)
    for number in range(6):
        branch = "main" if number % 2 else "side/branch"
        note = "--add-detached-metadata-string=a=b"
        stock.commit(tree, branch, note, timestamp=number * DAY)
        change_files(tree, seed=number, files=6)
    stock.run("commit", "--orphan", "--timestamp=@7", f"--tree=dir={tree}")
    stock.run("refs", "--create=far:away/x", "main^")
    change_files(tree, seed=99, files=6)
    lost = stock.commit(tree, "lost")
    stock.run("refs", "--delete", "lost")
    (stock.repo / f"objects/{lost[:2]}/{lost[2:]}.commit").unlink()
    return stock


def files(repo: Path) -> set[str]:
    """Every file of the repository that pruning may touch."""
    found = (repo / part for part in ("objects", "state", "deltas"))
    return {
        str(path.relative_to(repo))
        for top in found
        for path in top.rglob("*")
        if not path.is_dir()
    }


def compare(stock: Ostree, options: PruneOptions, *flags: str) -> PruneReport:
    """Prune a copy with ostree and the repository with ours; same files are left."""
    copy = stock.repo.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(stock.repo, copy, symlinks=True)
    said = Ostree(copy).run("prune", *flags)
    report = prune(Repo.open(stock.repo), options)
    assert files(stock.repo) == files(copy)
    total, pruned, freed = _said(said)
    assert (report.total, report.pruned) == (total, pruned)
    if freed is not None:
        assert report.freed_bytes == freed
    stock.fsck()
    assert dangling(stock.repo) == []
    return report


def _said(text: str) -> tuple[int, int, int | None]:
    total = re.search(r"Total objects: (\d+)", text)
    deleted = re.search(r"(\d+) objects, (?:freeing )?([\d.]+)\s(\w+)", text)
    assert total
    if deleted is None:
        return int(total[1]), 0, 0
    exact = int(deleted[2]) if deleted[3].startswith("byte") else None
    return int(total[1]), int(deleted[1]), exact


CASES = [
    (PruneOptions(), []),
    (PruneOptions(refs_only=True), ["--refs-only"]),
    (PruneOptions(refs_only=True, depth=0), ["--refs-only", "--depth=0"]),
    (PruneOptions(refs_only=True, depth=1), ["--refs-only", "--depth=1"]),
    (PruneOptions(depth=0), ["--depth=0"]),
    (
        PruneOptions(keep_younger_than=3 * DAY),
        ["--keep-younger-than=1970-01-04 00:00:00 +0000"],
    ),
    (
        PruneOptions(keep_younger_than=99 * DAY),
        ["--keep-younger-than=1970-04-10 00:00:00 +0000"],
    ),
]


@pytest.mark.parametrize("options, flags", CASES)
def test_the_same_objects_are_left(
    tmp_path: Path, options: PruneOptions, flags: list[str]
) -> None:
    report = compare(make(tmp_path, "archive"), options, *flags)
    assert report.pruned > 0


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_pruned(tmp_path: Path, mode: str) -> None:
    stock = make(tmp_path, mode)
    compare(stock, PruneOptions(refs_only=True, depth=0), "--refs-only", "--depth=0")
    stock.checkout("main", tmp_path / "out", "-U")


@pytest.mark.root
def test_split_xattrs_are_pruned(tmp_path: Path) -> None:
    bare = make(tmp_path, "bare")
    split_xattrs_repo(bare.repo, tmp_path / "split")
    options = PruneOptions(refs_only=True, depth=0)
    compare(Ostree(tmp_path / "split"), options, "--refs-only", "--depth=0")


def test_a_dry_run_counts_and_deletes_nothing(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    before = files(stock.repo)
    report = compare(
        stock, PruneOptions(refs_only=True, dry_run=True), "--refs-only", "--no-prune"
    )
    assert report.pruned > 0
    assert files(stock.repo) == before


def test_deleted_commits_leave_tombstones(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    commit = Checksum(stock.rev_parse("main^"))
    stock.run("refs", "--delete", "far:away/x")
    options = PruneOptions(delete_commits=(commit,))
    compare(stock, options, f"--delete-commit={commit}")
    repo = Repo.open(stock.repo)
    assert repo.is_tombstoned(commit)
    assert repo.config.tombstone_commits
    compare(stock, PruneOptions(refs_only=True, depth=0), "--refs-only", "--depth=0")
    assert repo.is_tombstoned(commit)


def test_a_commit_that_a_ref_names_is_not_deleted(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    commit = Checksum(stock.rev_parse("main"))
    before = files(stock.repo)
    with pytest.raises(RepositoryError, match="heads/main"):
        prune(Repo.open(stock.repo), PruneOptions(delete_commits=(commit,)))
    with pytest.raises(RefNotFoundError):
        prune(Repo.open(stock.repo), PruneOptions(delete_commits=(Checksum("a" * 64),)))
    assert files(stock.repo) == before


def partial(stock: Ostree, rev: str) -> str:
    """Make a commit partial: marked, and without one file and one directory."""
    commit = stock.rev_parse(rev)
    (stock.repo / f"state/{commit}.commitpartial").touch()
    listed = stock.run("ls", "-R", "-C", rev).splitlines()
    directory = next(line.split() for line in listed if line.endswith("/d1"))
    tree = next(word for word in directory if len(word) == 64)
    (stock.repo / f"objects/{tree[:2]}/{tree[2:]}.dirtree").unlink()
    return commit


def test_a_partial_commit_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    commit = partial(stock, "main")
    compare(stock, PruneOptions(refs_only=True, depth=0), "--refs-only", "--depth=0")
    repo = Repo.open(stock.repo)
    assert repo.is_partial(Checksum(commit))
    stock.run("refs", "--delete", "main")
    compare(stock, PruneOptions(refs_only=True), "--refs-only")
    assert not repo.is_partial(Checksum(commit))


def test_nothing_is_deleted_when_a_whole_commit_lacks_a_directory(
    tmp_path: Path,
) -> None:
    stock = make(tmp_path, "archive")
    commit = partial(stock, "main")
    (stock.repo / f"state/{commit}.commitpartial").unlink()
    assert stock.try_run("prune", "--refs-only").returncode
    before = files(stock.repo)
    with pytest.raises(ObjectNotFoundError):
        prune(Repo.open(stock.repo), PruneOptions(refs_only=True))
    assert files(stock.repo) == before


def test_static_deltas_go_with_their_commit(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    stock.run("static-delta", "generate", "main")
    stock.run("static-delta", "generate", "--empty", "main^")
    options = PruneOptions(refs_only=True, depth=0)
    stock.run("refs", "--delete", "far:away/x")
    compare(stock, options, "--refs-only", "--depth=0")
    assert len(list((stock.repo / "deltas").rglob("superblock"))) == 1


def test_a_mirrored_ref_and_a_ref_to_keep_count_like_any_other(tmp_path: Path) -> None:
    stock = make(tmp_path, "archive")
    repo = Repo.open(stock.repo)
    for name in ("mirrors/org.example.Os/m", "heads/p2p/keep/x"):
        kept = Checksum(stock.rev_parse("main"))
        repo.refs.set(RefPath(name), kept)
        stock.run("refs", "--delete", "main", "side/branch", "far:away/x")
        compare(
            stock, PruneOptions(refs_only=True, depth=0), "--refs-only", "--depth=0"
        )
        assert repo.has(ObjectName(kept, ObjectType.COMMIT))
        repo.refs.set(RefPath("heads/main"), kept)
        repo.refs.delete(RefPath(name))


def test_a_deployed_commit_is_kept_even_without_a_ref(tmp_path: Path) -> None:
    (tmp_path / "ostree").mkdir()
    stock = make(tmp_path / "ostree", "bare-user")
    kept = stock.rev_parse("main")
    stock.run("refs", "--delete", "main", "side/branch", "far:away/x")
    (tmp_path / f"ostree/deploy/os/deploy/{kept}.0").mkdir(parents=True)
    (tmp_path / "ostree/deploy/os/deploy/not-a-deployment").mkdir()
    (tmp_path / "ostree/deploy/os/var").mkdir()
    (tmp_path / "ostree/deploy/empty").mkdir()
    repo = Repo.open(stock.repo)
    prune(repo, PruneOptions(refs_only=True, depth=0))
    stock.checkout(kept, tmp_path / "out", "-U")
    with pytest.raises(RepositoryError, match="deployed"):
        prune(repo, PruneOptions(delete_commits=(Checksum(kept),)))


def test_what_somebody_else_needs_is_kept(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo", RepoMode.ARCHIVE)
    needed = ObjectName(Checksum("a" * 64), ObjectType.DIRMETA)
    for name in (needed, ObjectName(Checksum("b" * 64), ObjectType.DIRMETA)):
        path = repo.object_path(name)
        os.makedirs(os.path.dirname(path))
        Path(path).touch()
    assert prune(repo, keep=lambda: [needed]) == PruneReport(2, 1, 0)
    assert list(repo.all_objects()) == [needed]
