"""The embedded tree deployer: what is in force, what is kept, and what is refused."""

import os
from pathlib import Path

import pytest

from p2p.deploy.deployment import State
from p2p.deploy.tree import TreeDeployer
from p2p.errors import DeployError, ObjectNotFoundError
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.prune import PruneOptions, prune
from p2p.ostree.repo import Repo
from tests.deploy.places import (
    COMMITS,
    ONE,
    REFSPEC,
    THREE,
    TWO,
    assert_is,
    assert_sound,
    repo_of,
    summary,
)
from tests.ostree.samples import make_repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repo_of(tmp_path / "repo", *COMMITS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def deployer(repo: Repo, root: Path) -> TreeDeployer:
    return TreeDeployer(repo, root, user_mode=True, clock=lambda: 1000.5)


def kept_commits(repo: Repo) -> set[str]:
    return {commit for _, commit in repo.refs.all("heads/p2p/deployed/")}


def test_nothing_is_deployed_before_the_first_time(
    deployer: TreeDeployer, root: Path
) -> None:
    assert deployer.list() == ()
    assert not root.exists()


def test_a_commit_is_deployed_as_hard_links_behind_a_relative_link(
    repo: Repo, deployer: TreeDeployer, root: Path
) -> None:
    outcome = deployer.deploy(REFSPEC, ONE.checksum)
    assert outcome.changed
    assert os.readlink(root / "current") == f"deployments/{ONE.checksum}.0"
    assert_is(root / "current", ONE.checksum)
    hello = root / "current/usr/bin/hello"
    objects = {path.stat().st_ino for path in Path(repo.objects).rglob("*.file")}
    assert hello.stat().st_ino in objects
    (only,) = deployer.list()
    assert only == outcome.deployment
    assert (only.commit, only.refspec, only.state) == (
        ONE.checksum,
        REFSPEC,
        State.CURRENT,
    )
    assert (only.time, only.pinned) == (1000, False)
    assert Path(only.path) == (root / "current").resolve()


def test_what_is_current_already_is_left_and_said_to_be_so(
    deployer: TreeDeployer, root: Path
) -> None:
    deployer.deploy(REFSPEC, ONE.checksum)
    before = os.lstat(root / "current").st_ino
    outcome = deployer.deploy(REFSPEC, ONE.checksum)
    assert not outcome.changed
    assert outcome.deployment.id == f"{ONE.checksum}.0"
    assert os.lstat(root / "current").st_ino == before


def test_two_are_kept_and_a_third_takes_the_place_of_the_oldest(
    deployer: TreeDeployer, root: Path, repo: Repo
) -> None:
    for each in COMMITS:
        deployer.deploy(REFSPEC, each.checksum)
    assert summary(deployer) == [
        ("current", f"{THREE.checksum}.0"),
        ("previous", f"{TWO.checksum}.0"),
    ]
    assert len(os.listdir(root / "deployments")) == 2
    assert kept_commits(repo) == {TWO.checksum, THREE.checksum}


def test_a_rollback_swaps_the_two_and_another_swaps_them_back(
    deployer: TreeDeployer, root: Path
) -> None:
    for each in (ONE, TWO):
        deployer.deploy(REFSPEC, each.checksum)
    assert deployer.rollback().deployment.commit == ONE.checksum
    assert assert_sound(root) == ONE.checksum
    assert [each.commit for each in deployer.list()] == [ONE.checksum, TWO.checksum]
    assert deployer.rollback().deployment.commit == TWO.checksum
    assert assert_sound(root) == TWO.checksum


def test_without_another_deployment_there_is_no_rollback(
    deployer: TreeDeployer, root: Path
) -> None:
    deployer.deploy(REFSPEC, ONE.checksum)
    with pytest.raises(DeployError, match="no other deployment"):
        deployer.rollback()
    assert assert_sound(root) == ONE.checksum


def test_what_is_pinned_stays_until_it_is_unpinned(
    deployer: TreeDeployer, repo: Repo
) -> None:
    deployer.deploy(REFSPEC, ONE.checksum)
    first = f"{ONE.checksum}.0"
    assert deployer.pin(first).deployment.pinned
    for each in (TWO, THREE):
        deployer.deploy(REFSPEC, each.checksum)
    assert ("other", first) in summary(deployer)
    assert ONE.checksum in kept_commits(repo)
    assert not deployer.pin(first, pinned=False).deployment.pinned
    assert first not in dict(summary(deployer)).values()
    assert kept_commits(repo) == {TWO.checksum, THREE.checksum}
    with pytest.raises(DeployError, match="no deployment"):
        deployer.pin(first)


def test_prune_keeps_what_is_deployed(repo: Repo, deployer: TreeDeployer) -> None:
    deployer.deploy(REFSPEC, ONE.checksum)
    prune(repo, PruneOptions(refs_only=True, depth=0))
    assert all(map(repo.has, ONE.objects))
    assert not repo.has(TWO.name)


def test_an_older_commit_can_be_deployed_again_beside_itself(
    deployer: TreeDeployer, root: Path
) -> None:
    for each in (ONE, TWO, ONE, TWO):
        deployer.deploy(REFSPEC, each.checksum)
    assert [each.commit for each in deployer.list()] == [TWO.checksum, ONE.checksum]
    assert assert_sound(root) == TWO.checksum


def test_a_commit_that_is_not_here_as_a_whole_is_not_deployed(
    repo: Repo, deployer: TreeDeployer, root: Path
) -> None:
    with pytest.raises(ObjectNotFoundError, match="as a whole"):
        deployer.deploy(REFSPEC, Checksum("0" * 64))
    Path(repo.partial_path(ONE.checksum)).touch()
    with pytest.raises(ObjectNotFoundError, match="as a whole"):
        deployer.deploy(REFSPEC, ONE.checksum)
    assert assert_sound(root) is None
    assert kept_commits(repo) == set()


def test_an_object_that_is_missing_ends_it_with_nothing_left(
    repo: Repo, deployer: TreeDeployer, root: Path
) -> None:
    deployer.deploy(REFSPEC, ONE.checksum)
    (gone,) = (
        set(TWO.objects)
        - set(ONE.objects)
        - {TWO.name}
        - {n for n in TWO.objects if n.type is ObjectType.DIRTREE}
    )
    os.unlink(repo.object_path(ObjectName(gone.checksum, gone.type)))
    with pytest.raises(ObjectNotFoundError):
        deployer.deploy(REFSPEC, TWO.checksum)
    assert assert_sound(root) == ONE.checksum
    assert os.listdir(root / "deployments") == [f"{ONE.checksum}.0"]
    assert kept_commits(repo) == {ONE.checksum}


@pytest.mark.parametrize("mode", [RepoMode.ARCHIVE, RepoMode.BARE_USER_ONLY])
def test_repositories_of_other_modes_are_deployed_from(
    tmp_path: Path, root: Path, mode: RepoMode
) -> None:
    repo = repo_of(tmp_path / "other", ONE, mode=mode)
    TreeDeployer(repo, root, user_mode=True).deploy(REFSPEC, ONE.checksum)
    assert assert_sound(root) == ONE.checksum


@pytest.mark.root
def test_root_deploys_owners_and_attributes_of_a_bare_repository_as_hard_links(
    tmp_path: Path, root: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "program").write_text("program\n")
    os.chown(tree / "program", 12, 34)
    (tree / "program").chmod(0o4755)
    os.setxattr(tree / "program", "user.note", b"kept")
    repo = make_repo(str(tmp_path / "bare"), RepoMode.BARE, {"fsync": "false"})
    commit = commit_tree(repo, str(tree), CommitOptions(branch="main"))
    TreeDeployer(repo, root).deploy(REFSPEC, commit)
    program = root / "current/program"
    found = program.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (12, 34, 0o4755)
    assert os.getxattr(program, "user.note") == b"kept"
    assert found.st_nlink == 2
