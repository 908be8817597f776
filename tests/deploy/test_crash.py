"""A tree deployer killed at any step: `current` is a whole tree, the old or the new."""

import os
import shutil
from pathlib import Path

import pytest

from p2p.deploy.tree import TreeDeployer
from p2p.ostree.repo import Repo
from tests import killing
from tests.deploy.places import (
    COMMITS,
    ONE,
    REFSPEC,
    THREE,
    TWO,
    assert_sound,
    repo_of,
)

IMPORTS = """
from p2p.deploy.tree import TreeDeployer
from p2p.ostree.repo import Repo
def deployer():
    return TreeDeployer(Repo.open(sys.argv[1]), sys.argv[2], user_mode=True)
"""
DEPLOY = f"deployer().deploy({REFSPEC!r}, sys.argv[3])"
ROLLBACK = "deployer().rollback()"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repo_of(tmp_path / "place/repo", *COMMITS)


@pytest.fixture
def root(repo: Repo) -> Path:
    return Path(repo.path).parent / "root"


def deployer(repo: Repo, root: Path) -> TreeDeployer:
    return TreeDeployer(repo, root, user_mode=True)


def assert_tidy(repo: Repo, root: Path) -> None:
    """Nothing is left of a change that was killed: no files, and no refs."""
    listed = deployer(repo, root).list()
    assert set(os.listdir(root / "deployments")) == {each.id for each in listed}
    known = {".lock", "current", "deployments", "deployments.json"}
    assert set(os.listdir(root)) <= known
    refs = [commit for _, commit in repo.refs.all("heads/p2p/deployed/")]
    assert sorted(refs) == sorted({each.commit for each in listed})


def check_every_step(
    repo: Repo,
    root: Path,
    program: str,
    *,
    old: str | None,
    new: str,
    previous: str | None,
) -> int:
    """Kill the program at each of its steps; how many there are.

    After each, `current` is the old or the new commit and the rollback target of each
    is still known; the next change clears up and succeeds.
    """
    place = root.parent
    kept = place.parent / "kept"
    shutil.copytree(place, kept, symlinks=True)
    found = set()
    with killing.killer(
        place, IMPORTS, program, repo.path, str(root), THREE.checksum
    ) as killer:
        steps = killer.run()
        assert assert_sound(root) == new
        for at in range(1, steps + 1):
            shutil.rmtree(place)
            shutil.copytree(kept, place, symlinks=True)
            killer.run(at)
            now = assert_sound(root)
            found.add(now)
            assert now in {old, new}, f"killed at step {at}"
            listed = deployer(repo, root).list()
            expected = [old, previous] if now == old else [new, old]
            commits = [each.commit for each in listed]
            assert commits == [each for each in expected if each], f"step {at}"
            assert {each.refspec for each in listed} <= {REFSPEC}
            outcome = deployer(repo, root).deploy(REFSPEC, TWO.checksum)
            assert assert_sound(root) == TWO.checksum == outcome.deployment.commit
            assert_tidy(repo, root)
    assert found == {old, new}
    return steps


def test_killed_at_any_step_of_the_first_deployment(repo: Repo, root: Path) -> None:
    steps = check_every_step(
        repo, root, DEPLOY, old=None, new=THREE.checksum, previous=None
    )
    assert steps > 30


def test_killed_at_any_step_of_a_later_deployment(repo: Repo, root: Path) -> None:
    for each in (ONE, TWO):
        deployer(repo, root).deploy(REFSPEC, each.checksum)
    steps = check_every_step(
        repo,
        root,
        DEPLOY,
        old=TWO.checksum,
        new=THREE.checksum,
        previous=ONE.checksum,
    )
    assert steps > 30


def test_killed_at_any_step_of_a_rollback(repo: Repo, root: Path) -> None:
    for each in (ONE, THREE):
        deployer(repo, root).deploy(REFSPEC, each.checksum)
    steps = check_every_step(
        repo,
        root,
        ROLLBACK,
        old=THREE.checksum,
        new=ONE.checksum,
        previous=ONE.checksum,
    )
    assert steps > 5


def test_what_a_killed_clean_up_left_is_cleared_by_the_next(
    repo: Repo, root: Path
) -> None:
    """Killed again and again, it comes further each time, and never breaks anything."""
    deployer(repo, root).deploy(REFSPEC, ONE.checksum)
    left = root / "deployments" / f"{TWO.checksum}.7"
    shutil.copytree(root / "current/", left, symlinks=True)
    (root / "deployments/.half.p2p-1").mkdir()
    (root / ".current.new").symlink_to("deployments/nothing")
    place = root.parent
    with killing.killer(
        place, IMPORTS, DEPLOY, repo.path, str(root), ONE.checksum
    ) as killer:
        for at in (2, 3, 4):
            killer.run(at)
            assert assert_sound(root) == ONE.checksum
        killer.run()
    assert_tidy(repo, root)
