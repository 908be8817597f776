"""The test rig itself: servers, file systems, users and trees do what they say."""

import collections
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from tests import mounts, servers
from tests.debian import cache_directory
from tests.oracle import Ostree, OstreeError, closure
from tests.require import require
from tests.trees import (
    MIB,
    change_files,
    nasty_tree,
    os_tree,
    random_tree,
    small_tree,
)
from tests.unprivileged import Unprivileged


def archive_of_small_tree(tmp_path: Path) -> Ostree:
    small_tree(tmp_path / "tree")
    stock = Ostree.init(tmp_path / "origin", "archive")
    stock.commit(tmp_path / "tree", "main")
    return stock


def test_ostree_pulls_from_nginx_and_every_request_is_logged(
    tmp_path: Path, nginx: servers.StartNginx
) -> None:
    origin = archive_of_small_tree(tmp_path)
    server = nginx(origin.repo)
    stock = Ostree.init(tmp_path / "repo", "bare-user")
    stock.remote_add("o", server.url)
    stock.pull("o", "main")
    assert stock.rev_parse("o:main") == origin.rev_parse("main")
    paths = [request.path for request in server.requests() if request.status == 200]
    commit = stock.rev_parse("o:main")
    assert paths.count(f"/objects/{commit[:2]}/{commit[2:]}.commit") == 1


def test_ostree_pulls_over_tls_with_the_servers_authority_only(
    tmp_path: Path, nginx: servers.StartNginx
) -> None:
    server = nginx(archive_of_small_tree(tmp_path).repo, tls=True)
    assert server.certificates is not None
    stock = Ostree.init(tmp_path / "repo", "bare-user")
    stock.remote_add("strange", server.url)
    with pytest.raises(OstreeError):
        stock.pull("strange", "main")
    authority = f"--set=tls-ca-path={server.certificates.authority}"
    stock.remote_add("known", server.url, "--no-gpg-verify", authority)
    stock.pull("known", "main")
    assert stock.refs() == ["known:main"]


def test_two_servers_run_at_once_each_as_configured(
    tmp_path: Path, nginx: servers.StartNginx
) -> None:
    origin = archive_of_small_tree(tmp_path)
    refusing = nginx(origin.repo, extra="location /objects/ { return 503; }")
    serving = nginx(origin.repo)
    stock = Ostree.init(tmp_path / "repo", "bare-user")
    stock.remote_add("refusing", refusing.url)
    stock.remote_add("serving", serving.url)
    with pytest.raises(OstreeError, match="503"):
        stock.pull("refusing", "main")
    stock.pull("serving", "main")


def test_loop_file_system_is_ext4_and_takes_the_nasty_tree(
    loop_ext4: mounts.MakeMount,
) -> None:
    point = loop_ext4(64 * MIB)
    assert os.statvfs(point).f_blocks * os.statvfs(point).f_frsize < 64 * MIB
    assert f" {point} ext4 " in Path("/proc/mounts").read_text()
    nasty_tree(point / "tree", root=True)


def test_tmpfs_is_as_small_as_asked(tmpfs: mounts.MakeMount) -> None:
    point = tmpfs(2 * MIB)
    assert shutil.disk_usage(point).total == 2 * MIB
    with pytest.raises(OSError, match="No space left"):
        (point / "large").write_bytes(bytes(3 * MIB))


def test_ordinary_user_writes_at_home_and_owns_nothing_else(
    tmp_path: Path, ordinary_user: Unprivileged
) -> None:
    ordinary_user.run("touch", ordinary_user.home / "mine")
    assert (ordinary_user.home / "mine").stat().st_uid == ordinary_user.uid
    (tmp_path / "roots").touch()
    if ordinary_user.uid != os.geteuid():
        refused = ordinary_user.run("touch", tmp_path / "roots", check=False)
        assert "Permission denied" in refused.stderr


def test_ordinary_user_commits_the_nasty_tree(ordinary_user: Unprivileged) -> None:
    home = ordinary_user.home
    nasty_tree(home / "tree", root=False)
    stock = Ostree.init(home / "repo", "bare-user", prefix=ordinary_user.prefix)
    commit = stock.commit(home / "tree", "main")
    assert next((home / "repo/objects").rglob("*.commit")).stat().st_uid == (
        ordinary_user.uid
    )
    assert closure(home / "repo", commit).missing == frozenset()


def test_ordinary_user_runs_this_interpreter(ordinary_user: Unprivileged) -> None:
    program = "import os, p2p; print(os.geteuid(), os.environ['HOME'])"
    done = ordinary_user.run(sys.executable, "-c", program)
    assert done.stdout.split() == [str(ordinary_user.uid), str(ordinary_user.home)]
    assert done.stderr == ""


def test_missing_program_skips_a_test_and_fails_it_under_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs the program no-such"):
        require("ostree", "no-such")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs the program no-such"):
        require("ostree", "no-such")


def test_trees_are_the_same_each_time(tmp_path: Path) -> None:
    stock = Ostree.init(tmp_path / "repo", "bare-user")
    roots = []
    for name in ("first", "second"):
        tree = tmp_path / name
        tree.mkdir()
        nasty_tree(tree / "nasty", root=os.geteuid() == 0)
        small_tree(tree / "small")
        os_tree(tree / "os", version="1")
        random_tree(tree / "random", seed=7, files=200, size=2 * MIB)
        stock.commit(tree, name, "--owner-uid=0", "--owner-gid=0")
        roots.append(stock.root(name))
    assert roots[0] == roots[1]


def test_random_tree_has_about_the_size_and_changes_only_where_asked(
    tmp_path: Path,
) -> None:
    stock = Ostree.init(tmp_path / "repo", "bare-user")
    tree = tmp_path / "tree"
    random_tree(tree, seed=1, files=300, size=3 * MIB)
    size = sum(p.lstat().st_size for p in tree.rglob("*") if p.is_file())
    assert 2.5 * MIB < size < 3.5 * MIB
    before = closure(stock.repo, stock.commit(tree, "main")).reachable
    change_files(tree, seed=2, files=3)
    after = closure(stock.repo, stock.commit(tree, "main")).reachable
    assert len([name for name in after - before if name.endswith(".file")]) == 3


@pytest.mark.root
def test_ostree_deploys_the_os_tree_on_a_loop_file_system(
    tmp_path: Path, loop_ext4: mounts.MakeMount
) -> None:
    sysroot = loop_ext4()
    os_tree(tmp_path / "tree", version="1")
    stock = Ostree(sysroot / "ostree/repo")
    stock.admin("init-fs", sysroot)
    stock.admin("os-init", "tree", f"--sysroot={sysroot}")
    commit = stock.commit(tmp_path / "tree", "main")
    stock.admin("deploy", "--os=tree", f"--sysroot={sysroot}", "main")
    deployed = sysroot / f"ostree/deploy/tree/deploy/{commit}.0"
    assert (deployed / "etc/hostname").read_text() == "tree\n"


@pytest.mark.slow
def test_debian_tree_is_real_and_holds_only_what_ostree_can_commit(
    debian_tree: Path,
) -> None:
    assert debian_tree.parent == cache_directory()
    assert (debian_tree / "usr/bin/python3").is_symlink()
    assert list((debian_tree / "usr/lib/modules").glob("*/kernel"))
    kinds = collections.Counter(
        stat.S_IFMT(path.lstat().st_mode) for path in debian_tree.rglob("*")
    )
    assert kinds.keys() == {stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR}
    assert kinds[stat.S_IFREG] > 10_000
