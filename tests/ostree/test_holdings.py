"""A repository and its staging store, read as one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2p.errors import ConfigError, DamagedObjectError, ObjectNotFoundError
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings, store_mode
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from tests.ostree.samples import SAMPLE, file_object, make_repo

FILE, DATA = file_object(b"content")
ABSENT = Checksum("0" * 64)
TREE = next(name for name in SAMPLE.objects if name.type is ObjectType.DIRTREE)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER)


@pytest.fixture
def stage(repo: Repo) -> Iterator[Stage]:
    with Stage(repo) as opened:
        yield opened


def move(stage: Stage, name: ObjectName) -> None:
    """Publish one object without a commit, as half a publisher does."""
    place = Path(stage.target.object_path(name))
    place.parent.mkdir(exist_ok=True)
    Path(stage.repo.object_path(name)).rename(place)


@pytest.mark.parametrize("published", [False, True])
def test_objects_are_found_in_either_place(stage: Stage, *, published: bool) -> None:
    holdings = stage.holdings
    for name, data in ((FILE, DATA), (TREE, SAMPLE.objects[TREE])):
        stage.put(name, data)
        if published:
            move(stage, name)
        assert holdings.has(name)
    assert holdings.size(FILE) == len(b"content")
    assert holdings.size(TREE) == len(SAMPLE.objects[TREE])
    assert holdings.load_metadata(TREE) == SAMPLE.objects[TREE]
    assert holdings.load_dirtree(TREE.checksum).serialize() == SAMPLE.objects[TREE]
    with holdings.open_content(FILE.checksum) as reader:
        assert b"".join(reader.content()) == b"content"


def test_what_is_nowhere_is_said_to_be(stage: Stage) -> None:
    holdings = stage.holdings
    name = ObjectName(ABSENT, ObjectType.DIRTREE)
    assert not holdings.has(name)
    assert holdings.size(name) is None
    assert holdings.load_commitmeta(ABSENT) is None
    with pytest.raises(ObjectNotFoundError):
        holdings.load_metadata(name)
    with pytest.raises(ObjectNotFoundError):
        holdings.load_dirtree(ABSENT)
    with pytest.raises(ObjectNotFoundError):
        holdings.open_content(ABSENT)


def test_newly_staged_signatures_win_over_published_ones(stage: Stage) -> None:
    stage.put_commitmeta(SAMPLE.checksum, b"old")
    move(stage, ObjectName(SAMPLE.checksum, ObjectType.COMMITMETA))
    assert stage.holdings.load_commitmeta(SAMPLE.checksum) == b"old"
    stage.put_commitmeta(SAMPLE.checksum, b"new")
    assert stage.holdings.load_commitmeta(SAMPLE.checksum) == b"new"


def test_a_damaged_object_is_said_to_be_one(stage: Stage) -> None:
    stage.put(TREE, SAMPLE.objects[TREE])
    Path(stage.repo.object_path(TREE)).write_bytes(b"torn")
    with pytest.raises(DamagedObjectError, match=TREE.checksum[2:]):
        stage.holdings.load_dirtree(TREE.checksum)


def test_what_a_parent_repository_has_is_here(tmp_path: Path, repo: Repo) -> None:
    with Stage(repo) as stage:
        stage.put(FILE, DATA)
        move(stage, FILE)
    child = make_repo(str(tmp_path / "child"), RepoMode.ARCHIVE, {"parent": repo.path})
    with Stage(child) as stage:
        assert stage.holdings.has(FILE)
        assert stage.holdings.size(FILE) == 0
        with stage.holdings.open_content(FILE.checksum) as reader:
            assert b"".join(reader.content()) == b"content"


def test_parents_that_form_a_circle_are_refused(tmp_path: Path, repo: Repo) -> None:
    other = make_repo(str(tmp_path / "other"), RepoMode.BARE, {"parent": repo.path})
    repo.keys.set("core", "parent", other.path)
    repo.save_config()
    with pytest.raises(ConfigError, match="circle"):
        Repo.open(repo.path).has(FILE)


def test_without_a_store_there_are_no_holdings(repo: Repo) -> None:
    with pytest.raises(ConfigError):
        Holdings.of(repo)


@pytest.mark.parametrize("mode", RepoMode)
def test_the_store_has_the_mode_of_the_repository_where_it_can_be_written(
    mode: RepoMode,
) -> None:
    split = mode is RepoMode.BARE_SPLIT_XATTRS
    assert store_mode(mode) is (RepoMode.BARE_USER if split else mode)


def test_options_that_bear_on_reading_are_those_of_the_repository(
    tmp_path: Path,
) -> None:
    settings = {"disable-xattrs": "true"}
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE, settings)
    with Stage(repo) as stage:
        assert stage.repo.style == repo.style
        assert Holdings.of(repo)._stage.style == repo.style


@pytest.mark.parametrize("published", [False, True])
def test_a_glimpse_tells_what_is_not_here(stage: Stage, *, published: bool) -> None:
    glimpse = stage.holdings.glimpse()
    assert glimpse.lacks(FILE)
    stage.put(FILE, DATA)
    if published:
        move(stage, FILE)
    assert not stage.holdings.glimpse().lacks(FILE)
    assert glimpse.lacks(FILE), "looked at the disk again"


def test_a_full_directory_is_not_kept_in_mind(stage: Stage) -> None:
    directory = Path(stage.target.object_path(FILE)).parent
    directory.mkdir()
    for number in range(129):
        (directory / str(number)).touch()
    glimpse = stage.holdings.glimpse()
    assert not glimpse.lacks(FILE)
    assert glimpse.lacks(TREE)
