"""The power fails during a deployment: what had reached the disk is old or new, whole.

The deployer is killed at a step on an ext4 in a file. The file is copied before
anything else is written back, so that the copy holds what was on the disk and no
more; mounting it replays the journal, as after a power cut.
"""

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2p.deploy.tree import TreeDeployer
from p2p.ostree.config import RepoMode
from p2p.ostree.repo import Repo
from tests import killing
from tests.deploy.places import ONE, REFSPEC, TWO, assert_sound, publish
from tests.deploy.test_crash import DEPLOY, IMPORTS
from tests.ostree.samples import make_repo
from tests.require import require
from tests.trees import MIB

pytestmark = pytest.mark.root
NUMBERS = itertools.count()


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    """Mount an image; what is cached of it is gone afterwards."""
    point.mkdir(exist_ok=True)
    # Nothing but fsync writes back: a commit every minute, not every 5 seconds.
    options = "loop,commit=60"
    subprocess.run(["mount", "-o", options, image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def make_image(image: Path, point: Path, mode: RepoMode) -> None:
    """A file system with two commits, of which the first is deployed."""
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", image], check=True)
    with mounted(image, point):
        repo = make_repo(str(point / "repo"), mode, {"min-free-space-percent": "0"})
        publish(repo, ONE)
        TreeDeployer(repo, point / "root").deploy(REFSPEC, ONE.checksum)
        publish(repo, TWO)


def fresh(source: Path) -> Path:
    """Copy an image to a name that no other had.

    A loop device may outlive its mount by a moment, and `mount` takes one that is there
    for a file of the same name, with what it remembers of the content before.
    """
    copy = source.with_name(f"image-{next(NUMBERS)}")
    shutil.copyfile(source, copy)
    return copy


def cut(image: Path, point: Path) -> str | None:
    """What is in force on the disk now, as the next boot would find it."""
    copy = fresh(image)
    with mounted(copy, point):
        commit = assert_sound(point / "root")
        deployer = TreeDeployer(Repo.open(point / "repo"), point / "root")
        assert deployer.list()[0].commit == commit
        deployer.deploy(REFSPEC, TWO.checksum)
        assert assert_sound(point / "root") == TWO.checksum
        assert [each.commit for each in deployer.list()] == [
            TWO.checksum,
            ONE.checksum,
        ]
    copy.unlink()
    return commit


# Of an archive the files are copied, so that their content has to last too.
@pytest.mark.parametrize("mode", [RepoMode.BARE_USER, RepoMode.ARCHIVE])
def test_what_is_on_the_disk_is_old_or_new_and_whole(
    tmp_path: Path, mode: RepoMode
) -> None:
    require("loop", "mkfs.ext4")
    first = tmp_path / "first"
    point, other = tmp_path / "point", tmp_path / "other"
    make_image(first, point, mode)
    arguments = (str(point / "repo"), str(point / "root"), TWO.checksum)
    with killing.killer(point, IMPORTS, DEPLOY, *arguments) as killer:
        image = fresh(first)
        with mounted(image, point):
            steps = killer.run()
            # It said that it was done, so it has to last.
            assert cut(image, other) == TWO.checksum
        found = []
        # Most steps are links in the checkout; those at the end matter one by one.
        for at in [*range(3, steps - 24, 8), *range(steps - 24, steps + 1, 2)]:
            image.unlink()
            image = fresh(first)
            with mounted(image, point):
                killer.run(at)
                found.append(cut(image, other))
    changed = found.index(TWO.checksum)
    assert changed > 0
    assert set(found[:changed]) == {ONE.checksum}
    assert set(found[changed:]) == {TWO.checksum}
