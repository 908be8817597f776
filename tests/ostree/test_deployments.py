"""Deployments: found beside the repository of a sysroot, and where it was told of."""

from pathlib import Path

from p2p.ostree.config import RepoMode
from p2p.ostree.deployments import deployed_commits, list_deployments, remember_root
from p2p.ostree.repo import Repo

A, B = "a" * 64, "b" * 64


def test_a_repository_of_its_own_has_none(tmp_path: Path) -> None:
    assert deployed_commits(Repo.init(tmp_path / "repo", RepoMode.BARE_USER)) == set()
    (tmp_path / "deploy").mkdir()
    assert deployed_commits(Repo.open(tmp_path / "repo")) == set()


def test_a_sysroots_deployments_are_listed(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "ostree/repo", RepoMode.BARE_USER)
    assert deployed_commits(repo) == set()
    deploy = tmp_path / "ostree/deploy"
    for path in (
        f"one/deploy/{A}.0",
        f"one/deploy/{B}.12",
        f"two/deploy/{A}.1",
        "one/deploy/other",
        f"one/deploy/{A}",
        "three/var",
    ):
        (deploy / path).mkdir(parents=True)
    (deploy / f"one/deploy/{B}.0.origin").touch()
    (deploy / f"one/deploy/{'c' * 64}.0").touch()
    assert [
        (str(Path(found.path).relative_to(deploy)), found.commit)
        for found in list_deployments(repo)
    ] == [
        (f"one/deploy/{A}.0", A),
        (f"one/deploy/{B}.12", B),
        (f"two/deploy/{A}.1", A),
    ]
    assert deployed_commits(repo) == {A, B}


def test_a_repository_seen_through_a_link_is_the_same(tmp_path: Path) -> None:
    Repo.init(tmp_path / "ostree/repo", RepoMode.BARE_USER)
    (tmp_path / f"ostree/deploy/os/deploy/{A}.0").mkdir(parents=True)
    (tmp_path / "link").symlink_to("ostree/repo")
    assert deployed_commits(Repo.open(tmp_path / "link")) == {A}


def test_a_place_that_was_told_of_is_looked_into(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo", RepoMode.BARE_USER)
    (tmp_path / f"one/deployments/{A}.0").mkdir(parents=True)
    remember_root(repo, "1", str(tmp_path / "one"))
    remember_root(repo, "2", str(tmp_path / "gone"))
    (tmp_path / "repo/extensions/p2p/deployed/3").write_bytes(b"not/absolute")
    (found,) = list_deployments(repo)
    assert (found.path, found.commit) == (str(tmp_path / f"one/deployments/{A}.0"), A)
    (tmp_path / "one").rename(tmp_path / "two")
    assert deployed_commits(repo) == set()
    remember_root(repo, "1", str(tmp_path / "two"))
    assert deployed_commits(repo) == {A}
