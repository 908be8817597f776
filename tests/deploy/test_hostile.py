"""Places that are not as they should be: an error that says so, or it is put right."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from p2p.deploy.tree import TreeDeployer
from p2p.errors import DeployError, Error, LockedError, NoSpaceError, ReadOnlyError
from p2p.ostree.config import RepoMode
from p2p.ostree.lock import locked
from p2p.ostree.repo import Repo
from tests.deploy.places import (
    COMMITS,
    ONE,
    REFSPEC,
    THREE,
    TWO,
    assert_sound,
    publish,
    repo_of,
    summary,
)
from tests.mounts import MakeMount
from tests.ostree.samples import Sample, make_repo, sample
from tests.trees import KIB, MIB
from tests.unprivileged import Unprivileged


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repo_of(tmp_path / "repo", *COMMITS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def deployer(repo: Repo, root: Path) -> TreeDeployer:
    return TreeDeployer(repo, root, user_mode=True)


# -- the place itself ------------------------------------------------------------------


def test_a_file_is_no_place(deployer: TreeDeployer, root: Path) -> None:
    root.write_text("something\n")
    assert deployer.list() == ()
    with pytest.raises(DeployError, match="not a directory"):
        deployer.deploy(REFSPEC, ONE.checksum)
    assert root.read_text() == "something\n"


def test_a_link_to_nowhere_is_no_place(deployer: TreeDeployer, root: Path) -> None:
    root.symlink_to("nowhere")
    with pytest.raises(DeployError, match="not a directory"):
        deployer.deploy(REFSPEC, ONE.checksum)


def test_a_directory_of_others_is_left_alone(
    deployer: TreeDeployer, root: Path
) -> None:
    (root / "deployments/theirs").mkdir(parents=True)
    with pytest.raises(DeployError, match="neither empty nor"):
        deployer.deploy(REFSPEC, ONE.checksum)
    with pytest.raises(DeployError, match="neither empty nor"):
        deployer.rollback()
    assert (root / "deployments/theirs").is_dir()


def test_an_empty_file_system_is_a_place(deployer: TreeDeployer, root: Path) -> None:
    (root / "lost+found").mkdir(parents=True)
    deployer.deploy(REFSPEC, ONE.checksum)
    assert assert_sound(root) == ONE.checksum
    assert (root / "lost+found").is_dir()


@pytest.mark.root
def test_a_read_only_place_is_said_to_be_one_and_can_be_read(
    repo: Repo, tmpfs: MakeMount
) -> None:
    point = tmpfs(MIB)
    deployer = TreeDeployer(repo, point / "root", user_mode=True)
    deployer.deploy(REFSPEC, ONE.checksum)
    subprocess.run(["mount", "-o", "remount,ro", point], check=True)
    with pytest.raises(ReadOnlyError, match="Read-only file system"):
        deployer.deploy(REFSPEC, TWO.checksum)
    with pytest.raises(ReadOnlyError, match="Read-only file system"):
        deployer.rollback()
    assert summary(deployer) == [("current", f"{ONE.checksum}.0")]
    assert assert_sound(point / "root") == ONE.checksum


@pytest.mark.root
def test_a_place_on_another_file_system_holds_copies(
    repo: Repo, tmpfs: MakeMount
) -> None:
    root = tmpfs(MIB) / "root"
    TreeDeployer(repo, root, user_mode=True).deploy(REFSPEC, ONE.checksum)
    assert assert_sound(root) == ONE.checksum
    assert (root / "current/usr/bin/hello").stat().st_nlink == 1


@pytest.mark.root
def test_a_full_disk_leaves_what_was_and_no_half_tree(
    repo: Repo, tmpfs: MakeMount
) -> None:
    large = sample({f"file{n}": bytes([n]) * 64 * KIB for n in range(32)})
    publish(repo, large)
    root = tmpfs(MIB) / "root"
    deployer = TreeDeployer(repo, root, user_mode=True)
    deployer.deploy(REFSPEC, ONE.checksum)
    with pytest.raises(NoSpaceError, match="No space left"):
        deployer.deploy(REFSPEC, large.checksum)
    assert assert_sound(root) == ONE.checksum
    assert os.listdir(root / "deployments") == [f"{ONE.checksum}.0"]
    assert deployer.deploy(REFSPEC, TWO.checksum).changed
    assert assert_sound(root) == TWO.checksum


@pytest.mark.root
def test_a_place_of_another_user_is_refused(
    tmp_path: Path, ordinary_user: Unprivileged
) -> None:
    home = ordinary_user.home
    ordinary_user.run("mkdir", home / "tmp")
    place = tmp_path / "theirs"
    place.mkdir()
    program = (
        "import sys\n"
        "from p2p.deploy.tree import TreeDeployer\n"
        "from p2p.errors import ReadOnlyError\n"
        "from p2p.ostree.repo import Repo\n"
        "from tests.deploy.places import *\n"
        "from pathlib import Path\n"
        "repo = repo_of(Path(sys.argv[1]), ONE)\n"
        "try:\n"
        "    TreeDeployer(repo, sys.argv[2]).deploy(REFSPEC, ONE.checksum)\n"
        "except ReadOnlyError as error:\n"
        "    print(error)\n"
    )
    done = ordinary_user.run(*(sys.executable, "-c", program, home / "repo", place))
    assert "Permission denied" in done.stdout, done
    assert list(place.iterdir()) == []


def test_directories_that_may_not_be_written_are_cleared_away_too(
    ordinary_user: Unprivileged,
) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from p2p.deploy.tree import TreeDeployer\n"
        "from p2p.ostree.commit import CommitOptions, commit_tree\n"
        "from p2p.ostree.config import RepoMode\n"
        "from p2p.ostree.repo import Repo\n"
        "home = Path(sys.argv[1])\n"
        "repo = Repo.init(home / 'repo', RepoMode.BARE_USER)\n"
        "tree = home / 'tree'\n"
        "(tree / 'closed/within').mkdir(parents=True)\n"
        "(tree / 'closed/within/file').write_text('x')\n"
        "(tree / 'closed/within').chmod(0o500)\n"
        "(tree / 'closed').chmod(0o500)\n"
        "deployer = TreeDeployer(repo, home / 'root')\n"
        "for number in range(4):\n"
        "    (tree / 'number').write_text(str(number))\n"
        "    options = CommitOptions(branch='main', timestamp=number)\n"
        "    commit = commit_tree(repo, str(tree), options)\n"
        "    assert deployer.deploy('o:main', commit).notes == ()\n"
        "print(len(os.listdir(home / 'root/deployments')))\n"
        "print((home / 'root/current/number').read_text())\n"
    )
    done = ordinary_user.run(
        sys.executable, "-c", program, ordinary_user.home, check=False
    )
    assert done.stdout.split() == ["2", "3"], done.stderr


@pytest.mark.root
def test_what_is_mounted_in_an_old_tree_is_not_cleared_away(
    deployer: TreeDeployer, root: Path
) -> None:
    """It runs in a container, say, with a /var of the host."""
    for each in (ONE, TWO):
        deployer.deploy(REFSPEC, each.checksum)
    var = root.with_name("a var")
    var.mkdir()
    (var / "data").touch()
    inside = root / "deployments" / f"{ONE.checksum}.0" / "etc"
    subprocess.run(["mount", "--bind", var, inside], check=True)
    try:
        outcome = deployer.deploy(REFSPEC, THREE.checksum)
        assert outcome.changed
        assert "resource busy" in outcome.notes[0]
        assert str(inside) in outcome.notes[0]
        assert deployer.deploy(REFSPEC, THREE.checksum).notes == outcome.notes
    finally:
        subprocess.run(["umount", inside], check=True)
    assert (var / "data").exists()
    assert assert_sound(root) == THREE.checksum
    assert deployer.deploy(REFSPEC, THREE.checksum).notes == ()
    assert len(os.listdir(root / "deployments")) == 2


def test_whatever_else_lies_among_the_trees_goes(
    deployer: TreeDeployer, root: Path, tmp_path: Path
) -> None:
    deployer.deploy(REFSPEC, ONE.checksum)
    (tmp_path / "outside/file").parent.mkdir()
    (tmp_path / "outside/file").touch()
    (root / "deployments/file").touch()
    (root / "deployments/link").symlink_to(tmp_path / "outside")
    (root / "deployments" / f"{TWO.checksum}.0").mkdir()
    (root / "deployments" / f"{TWO.checksum}.0/link").symlink_to(tmp_path / "outside")
    assert deployer.deploy(REFSPEC, TWO.checksum).notes == ()
    assert assert_sound(root) == TWO.checksum
    assert len(os.listdir(root / "deployments")) == 2
    assert (tmp_path / "outside/file").exists()


# -- what somebody did by hand ---------------------------------------------------------


def test_a_directory_in_the_place_of_the_link_is_left_alone(
    deployer: TreeDeployer, root: Path
) -> None:
    deployer.deploy(REFSPEC, ONE.checksum)
    (root / "current").unlink()
    (root / "current").mkdir()
    (root / "current/mine").touch()
    for change in (
        deployer.list,
        deployer.rollback,
        lambda: deployer.deploy(REFSPEC, TWO.checksum),
    ):
        with pytest.raises(DeployError, match="not a link to a deployment"):
            change()
    assert (root / "current/mine").exists()
    assert os.listdir(root / "deployments") == [f"{ONE.checksum}.0"]
    shutil.rmtree(root / "current")
    assert deployer.deploy(REFSPEC, TWO.checksum).changed
    assert assert_sound(root) == TWO.checksum


@pytest.mark.parametrize("target", ["/etc", "deployments", "../x/deployments/a", ""])
def test_a_link_to_elsewhere_is_left_alone(
    deployer: TreeDeployer, root: Path, target: str
) -> None:
    deployer.deploy(REFSPEC, ONE.checksum)
    (root / "current").unlink()
    (root / "current").symlink_to(target or f"{root}/deployments/{ONE.checksum}.0")
    with pytest.raises(DeployError, match="not a link to a deployment"):
        deployer.deploy(REFSPEC, TWO.checksum)
    assert os.listdir(root / "deployments") == [f"{ONE.checksum}.0"]


def test_a_link_that_was_removed_costs_nothing_that_was_deployed(
    deployer: TreeDeployer, root: Path
) -> None:
    for each in (ONE, TWO):
        deployer.deploy(REFSPEC, each.checksum)
    (root / "current").unlink()
    assert [each.commit for each in deployer.list()] == [TWO.checksum, ONE.checksum]
    assert deployer.rollback().deployment.commit == TWO.checksum
    assert assert_sound(root) == TWO.checksum


def test_a_link_that_was_turned_back_by_hand_counts(
    deployer: TreeDeployer, root: Path
) -> None:
    for each in (ONE, TWO):
        deployer.deploy(REFSPEC, each.checksum)
    (root / "current").unlink()
    (root / "current").symlink_to(f"deployments/{ONE.checksum}.0")
    assert [each.commit for each in deployer.list()] == [ONE.checksum, TWO.checksum]
    deployer.deploy(REFSPEC, THREE.checksum)
    assert [each.commit for each in deployer.list()] == [THREE.checksum, ONE.checksum]


def test_the_current_tree_that_was_deleted_is_made_again(
    deployer: TreeDeployer, root: Path
) -> None:
    for each in (ONE, TWO):
        deployer.deploy(REFSPEC, each.checksum)
    shutil.rmtree(root / "deployments" / f"{TWO.checksum}.0")
    assert [each.commit for each in deployer.list()] == [ONE.checksum]
    outcome = deployer.deploy(REFSPEC, TWO.checksum)
    assert outcome.changed
    assert assert_sound(root) == TWO.checksum
    assert [each.commit for each in deployer.list()] == [TWO.checksum, ONE.checksum]


def test_one_can_go_back_from_a_tree_that_was_deleted(
    deployer: TreeDeployer, root: Path
) -> None:
    for each in (ONE, TWO):
        deployer.deploy(REFSPEC, each.checksum)
    shutil.rmtree(root / "deployments" / f"{TWO.checksum}.0")
    assert deployer.rollback().deployment.commit == ONE.checksum
    assert assert_sound(root) == ONE.checksum


def test_one_cannot_go_back_to_a_tree_that_was_deleted(
    deployer: TreeDeployer, root: Path
) -> None:
    for each in (ONE, TWO):
        deployer.deploy(REFSPEC, each.checksum)
    shutil.rmtree(root / "deployments" / f"{ONE.checksum}.0")
    with pytest.raises(DeployError, match="no other deployment"):
        deployer.rollback()
    assert assert_sound(root) == TWO.checksum


ID = f"{'a' * 64}.0"


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (2 << 20),
        {"owner": "../../heads/main00"},
        {"order": ["../../etc"]},
        {"order": [1]},
        {"order": "x"},
        {"deployments": []},
        {"deployments": {"x": {"refspec": None, "time": None, "pinned": False}}},
        {"deployments": {ID: {"refspec": 1, "time": None, "pinned": False}}},
        {"deployments": {ID: {"refspec": None, "time": "now", "pinned": False}}},
        {"deployments": {ID: {"refspec": None, "time": 1, "pinned": 1}}},
        {"deployments": {ID: None}},
    ],
    ids=lambda record: repr(record)[:40],
)
def test_a_damaged_record_is_said_to_be_damaged_and_can_be_removed(
    deployer: TreeDeployer, root: Path, record: bytes | dict[str, object]
) -> None:
    for each in (ONE, TWO):
        deployer.deploy(REFSPEC, each.checksum)
    path = root / "deployments.json"
    if isinstance(record, dict):
        whole = json.loads(path.read_text())
        assert whole.keys() == {"owner", "order", "deployments"}
        record = json.dumps(whole | record).encode()
    path.write_bytes(record)
    with pytest.raises(DeployError, match="damaged"):
        deployer.rollback()
    with pytest.raises(DeployError, match="damaged"):
        deployer.deploy(REFSPEC, THREE.checksum)
    with pytest.raises(DeployError, match="damaged") as caught:
        deployer.list()
    assert caught.value.hint.startswith("Remove it")
    assert assert_sound(root) == TWO.checksum
    path.unlink()
    deployer.deploy(REFSPEC, THREE.checksum)
    assert [each.commit for each in deployer.list()] == [THREE.checksum, TWO.checksum]


def test_fields_of_a_newer_version_are_ignored(
    deployer: TreeDeployer, root: Path
) -> None:
    deployer.deploy(REFSPEC, ONE.checksum)
    path = root / "deployments.json"
    record = json.loads(path.read_text())
    record["deployments"][f"{ONE.checksum}.0"]["health"] = "good"
    path.write_text(json.dumps(record | {"later": 1}))
    assert summary(deployer) == [("current", f"{ONE.checksum}.0")]
    deployer.deploy(REFSPEC, TWO.checksum)
    assert assert_sound(root) == TWO.checksum


# -- several at once -------------------------------------------------------------------


def test_two_at_once_take_turns(repo: Repo, root: Path) -> None:
    errors: list[BaseException] = []

    def run(*commits: Sample) -> None:
        own = TreeDeployer(Repo.open(repo.path), root, user_mode=True)
        try:
            for each in commits * 5:
                own.deploy(REFSPEC, each.checksum)
        except Error as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=commits)
        for commits in ((ONE, TWO), (TWO, THREE))
    ]
    for thread in threads:
        thread.start()
    reader = TreeDeployer(repo, root)
    while any(thread.is_alive() for thread in threads):
        assert len(reader.list()) <= 2
    for thread in threads:
        thread.join()
    assert errors == []
    assert assert_sound(root) is not None
    assert len(os.listdir(root / "deployments")) == 2


def test_a_repository_that_is_being_pruned_is_waited_for(
    tmp_path: Path, root: Path
) -> None:
    settings = {"lock-timeout-secs": "0", "fsync": "false"}
    repo = make_repo(str(tmp_path / "locked"), RepoMode.BARE_USER, settings)
    publish(repo, ONE)
    lock = os.path.join(repo.path, ".lock")
    deployer = TreeDeployer(repo, root, user_mode=True)
    with (
        locked(lock, exclusive=True, timeout_seconds=0),
        pytest.raises(LockedError, match="locked"),
    ):
        deployer.deploy(REFSPEC, ONE.checksum)
    assert assert_sound(root) is None
    deployer.deploy(REFSPEC, ONE.checksum)
    assert assert_sound(root) == ONE.checksum
