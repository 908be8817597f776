"""Our commits against those of `ostree commit`: same checksums, same files."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.gvariant import Variant
from p2p.ostree.repo import Repo
from p2p.ostree.source import SourceOptions
from tests.oracle import (
    ObjectStat,
    Ostree,
    dangling,
    differences,
    snapshot,
    walk_objects,
)
from tests.trees import canonical_tree, change_files, nasty_tree, random_tree
from tests.unprivileged import Unprivileged

MODES = ("archive", "bare", "bare-user", "bare-user-only")
WHEN = 1_700_000_000
MAIN = CommitOptions(branch="main", timestamp=WHEN)


def make(path: Path, mode: str, **options: str) -> Repo:
    """A repository of ours."""
    return Repo.init(path, RepoMode.parse(mode, where="test"), **options)


def objects(repo: Path) -> dict[str, ObjectStat]:
    """Every object; times of symbolic links are left out, as ostree leaves them."""
    return {
        name: replace(found, mtime_ns=0) if found.mode[0] == "l" else found
        for name, found in snapshot(repo).items()
    }


def without_time(found: dict[str, ObjectStat]) -> dict[str, ObjectStat]:
    """The same without the times of files that are no bare content."""
    return {
        name: found[name]
        if name.endswith(".file")
        else replace(found[name], mtime_ns=0)
        for name in found
    }


def same_objects(stock: Path, ours: Path) -> list[str]:
    """What differs between two repositories, other than times that are arbitrary."""
    return differences(without_time(objects(stock)), without_time(objects(ours)))


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """The nastiest tree this user can make."""
    tree = tmp_path / "tree"
    nasty_tree(tree, root=os.geteuid() == 0)
    return tree


@pytest.mark.parametrize("mode", MODES)
def test_a_nasty_tree_gets_the_checksum_and_the_files_of_ostree(
    tmp_path: Path, mode: str
) -> None:
    tree = tmp_path / "tree"
    if mode == "bare-user-only":
        canonical_tree(tree)
    else:
        nasty_tree(tree, root=os.geteuid() == 0)
    stock = Ostree.init(tmp_path / "stock", mode)
    theirs = stock.commit(tree, "main", "--subject=S\u00fcbject", "--body=b\no")
    ours = make(tmp_path / "ours", mode)
    options = replace(MAIN, subject="S\u00fcbject", body="b\no")
    assert commit_tree(ours, tree, options) == theirs
    assert same_objects(stock.repo, Path(ours.path)) == []
    assert ours.resolve("main") == theirs


@pytest.mark.parametrize("mode", MODES)
def test_ostree_accepts_what_was_committed(tmp_path: Path, mode: str) -> None:
    tree = tmp_path / "tree"
    if mode == "bare-user-only":
        canonical_tree(tree)
    else:
        nasty_tree(tree, root=os.geteuid() == 0)
    path = tmp_path / "ours"
    commit = commit_tree(make(path, mode), tree, MAIN)
    stock = Ostree(path)
    stock.fsck()
    stock.checkout("main", tmp_path / "out", "-U")
    other = Ostree.init(tmp_path / "other", "archive")
    other.pull_local(path, "main")
    assert other.rev_parse("main") == commit
    assert other.ls("main") == stock.ls("main")
    assert walk_objects(path).problems == ()
    assert dangling(path) == []
    assert sorted(os.listdir(path / "tmp")) == ["cache"]


@pytest.mark.parametrize("mode", ["archive", "bare-user", "bare-user-only"])
def test_an_ordinary_user_commits_what_ostree_commits(
    tmp_path: Path, mode: str, ordinary_user: Unprivileged
) -> None:
    tree = ordinary_user.home / "tree"
    if mode == "bare-user-only":
        canonical_tree(tree)
    else:
        nasty_tree(tree, root=False)
    ordinary_user.run("true")
    stock = Ostree.init(ordinary_user.home / "stock", mode, prefix=ordinary_user.prefix)
    theirs = stock.commit(tree, "main")
    ours = ordinary_user.home / "ours"
    program = (
        "import sys; from tests.compat.test_commit import *; "
        "print(commit_tree(make(sys.argv[1], sys.argv[2]), sys.argv[3], MAIN))"
    )
    done = ordinary_user.run(sys.executable, "-c", program, ours, mode, tree)
    assert done.stdout.strip() == theirs
    assert same_objects(stock.repo, ours) == []
    Ostree(ours, prefix=ordinary_user.prefix).fsck()


def test_metadata_is_in_the_order_of_ostree(tmp_path: Path, nasty: Path) -> None:
    stock = Ostree.init(tmp_path / "stock", "archive", collection_id="org.example.Os")
    theirs = stock.commit(
        nasty,
        "os/main",
        "--add-metadata-string=version=1.0",
        "--add-metadata-string=z=last letter",
        "--add-metadata=a=uint32 5",
        "--bind-ref=zzz",
        "--bind-ref=aaa",
        "--generate-sizes",
        "--add-detached-metadata-string=note=detached",
    )
    ours = make(tmp_path / "ours", "archive", collection_id="org.example.Os")
    options = CommitOptions(
        branch="os/main",
        timestamp=WHEN,
        metadata=(
            ("version", Variant("s", "1.0")),
            ("z", Variant("s", "last letter")),
            ("a", Variant("u", 5)),
        ),
        detached=(("note", Variant("s", "detached")),),
        bind_refs=("zzz", "aaa"),
        sizes=True,
    )
    assert commit_tree(ours, nasty, options) == theirs
    assert same_objects(stock.repo, Path(ours.path)) == []


@pytest.mark.parametrize("again", [False, True])
def test_sizes_are_those_of_ostree_also_of_objects_already_there(
    tmp_path: Path, nasty: Path, again: bool
) -> None:
    stock = Ostree.init(tmp_path / "stock", "archive")
    ours = make(tmp_path / "ours", "archive")
    if again:
        stock.commit(nasty, "main")
        commit_tree(ours, nasty, MAIN)
    theirs = stock.commit(nasty, "main", "--generate-sizes", "--parent=none")
    options = replace(MAIN, sizes=True, parent="none")
    assert commit_tree(ours, nasty, options) == theirs


def test_sizes_are_left_out_where_ostree_leaves_them_out(
    tmp_path: Path, nasty: Path
) -> None:
    stock = Ostree.init(tmp_path / "stock", "bare-user")
    theirs = stock.commit(nasty, "main", "--generate-sizes")
    ours = make(tmp_path / "ours", "bare-user")
    assert commit_tree(ours, nasty, replace(MAIN, sizes=True)) == theirs


def test_a_second_commit_has_the_first_as_its_parent(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    random_tree(tree, seed=1, files=200, size=2_000_000)
    stock = Ostree.init(tmp_path / "stock", "bare-user")
    ours = make(tmp_path / "ours", "bare-user")
    for number in range(3):
        theirs = stock.commit(tree, "main", timestamp=WHEN + number)
        options = replace(MAIN, timestamp=WHEN + number)
        assert commit_tree(ours, tree, options) == theirs
        change_files(tree, seed=number, files=5)
    assert same_objects(stock.repo, Path(ours.path)) == []


@pytest.mark.parametrize(
    "flags, options",
    [
        (["--orphan"], {"branch": None}),
        (["--orphan", "--bind-ref=x"], {"branch": None, "bind_refs": ("x",)}),
        (["--branch=main", "--bind-ref=main"], {"bind_refs": ("main",)}),
        (["--branch=main", "--no-bindings"], {"bindings": False}),
        (["--branch=main", "--parent=none"], {"parent": "none"}),
        (["--branch=main", f"--parent={'a' * 64}"], {"parent": "a" * 64}),
        (
            [
                "--branch=main",
                "--add-metadata-string=ostree.collection-binding=org.x.Y",
            ],
            {"metadata": (("ostree.collection-binding", Variant("s", "org.x.Y")),)},
        ),
    ],
)
def test_bindings_and_parents_are_those_of_ostree(
    tmp_path: Path, flags: list[str], options: dict[str, Any]
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    tree.chmod(0o755)
    stock = Ostree.init(tmp_path / "stock", "archive", collection_id="org.example.Os")
    ours = make(tmp_path / "ours", "archive", collection_id="org.example.Os")
    for _ in range(2):
        theirs = stock.run(
            "commit", f"--timestamp=@{WHEN}", *flags, f"--tree=dir={tree}"
        ).strip()
        assert commit_tree(ours, tree, replace(MAIN, **options)) == theirs


@pytest.mark.root
@pytest.mark.parametrize(
    "flags, source",
    [
        (["--owner-uid=7", "--owner-gid=8"], SourceOptions(owner_uid=7, owner_gid=8)),
        (["--owner-uid=0"], SourceOptions(owner_uid=0)),
        (["--no-xattrs"], SourceOptions(xattrs=False)),
        (["--canonical-permissions"], SourceOptions(canonical_permissions=True)),
    ],
)
def test_changes_on_the_way_are_those_of_ostree(
    tmp_path: Path, nasty: Path, flags: list[str], source: SourceOptions
) -> None:
    stock = Ostree.init(tmp_path / "stock", "bare-user")
    theirs = stock.commit(nasty, "main", *flags)
    ours = make(tmp_path / "ours", "bare-user")
    assert commit_tree(ours, nasty, MAIN, source) == theirs


def test_modes_are_overridden_and_paths_skipped_as_by_ostree(
    tmp_path: Path, nasty: Path
) -> None:
    (tmp_path / "modes").write_text("+2048 /links/target\n=384 /sizes\n=448 /sizes/one")
    (tmp_path / "skip").write_text("/names\n/sizes/empty\n")
    stock = Ostree.init(tmp_path / "stock", "archive")
    theirs = stock.commit(
        nasty,
        "main",
        f"--statoverride={tmp_path / 'modes'}",
        f"--skip-list={tmp_path / 'skip'}",
    )
    ours = make(tmp_path / "ours", "archive")
    source = SourceOptions(
        add_modes={"/links/target": 2048},
        set_modes={"/sizes": 384, "/sizes/one": 448},
        skip=frozenset({"/names", "/sizes/empty"}),
    )
    assert commit_tree(ours, nasty, MAIN, source) == theirs


def test_bare_user_only_makes_permissions_canonical_by_itself(
    tmp_path: Path, nasty: Path
) -> None:
    stock = Ostree.init(tmp_path / "stock", "bare-user-only")
    theirs = stock.commit(nasty, "main")
    ours = make(tmp_path / "ours", "bare-user-only")
    assert commit_tree(ours, nasty, MAIN) == theirs
    assert same_objects(stock.repo, Path(ours.path)) == []


def test_a_repository_without_xattrs_commits_none(tmp_path: Path, nasty: Path) -> None:
    stock = Ostree.init(tmp_path / "stock", "bare-user")
    config = stock.repo / "config"
    config.write_text(config.read_text() + "disable-xattrs=true\n")
    shutil.copytree(stock.repo, tmp_path / "ours")
    theirs = stock.commit(nasty, "main")
    assert commit_tree(Repo.open(tmp_path / "ours"), nasty, MAIN) == theirs


def test_the_summary_is_kept_up_to_date_when_the_repository_says_so(
    tmp_path: Path, nasty: Path
) -> None:
    ours = make(tmp_path / "ours", "archive")
    ours.keys.set("core", "auto-update-summary", "true")
    ours.save_config()
    commit = commit_tree(ours, nasty, MAIN)
    shown = Ostree(Path(ours.path)).run("summary", "--view")
    assert "* main" in shown
    assert commit in shown


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["archive", "bare", "bare-user"])
def test_a_real_system_gets_the_checksum_of_ostree(
    tmp_path: Path, debian_tree: Path, mode: str
) -> None:
    stock = Ostree.init(tmp_path / "stock", mode)
    theirs = stock.commit(debian_tree, "main", "--generate-sizes")
    ours = make(tmp_path / "ours", mode)
    assert commit_tree(ours, debian_tree, replace(MAIN, sizes=True)) == theirs
    assert same_objects(stock.repo, Path(ours.path)) == []
