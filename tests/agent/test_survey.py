"""What of some commits is here, what is missing, and when nothing is any more."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2p.agent.survey import Survey, Tally
from p2p.errors import DamagedObjectError, FormatError, IntegrityError
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import (
    Checksum,
    DirTree,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.publish import NativePublisher, NewCommit, Publication
from p2p.ostree.stage import Stage
from tests.ostree.samples import SAMPLE, TIME, TREE, Sample, make_repo, sample

NEXT = sample({**TREE, "new": b"new"}, parent=SAMPLE, timestamp=TIME + 1)
ROOT = ObjectName(SAMPLE.commit.root_dirtree, ObjectType.DIRTREE)
DIRTREES = {n for n in SAMPLE.objects if n.type is ObjectType.DIRTREE}
FILES = {n for n in SAMPLE.objects if n.type is ObjectType.FILE}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER)
    with Stage(repo) as opened:
        yield opened


def put(stage: Stage, names: set[ObjectName] | None = None) -> None:
    for name, data in SAMPLE.objects.items():
        if names is None or name in names:
            stage.put(name, data)


def publish(stage: Stage, new: Sample) -> None:
    commit = NewCommit(checksum=new.checksum, commit=new.commit)
    NativePublisher(stage).publish(Publication(commits=(commit,), refs=()))


def fetch(survey: Survey, objects: dict[ObjectName, bytes]) -> list[ObjectName]:
    """Fetch all that is missing, one by one; the names in the order asked for."""
    asked = []
    while names := survey.take(1):
        asked += names
        for name in names:
            if name.type is ObjectType.DIRTREE:
                survey.add_dirtree(name, objects[name])
            survey.acknowledge([name])
    return asked


def test_of_an_unknown_commit_everything_is_missing(stage: Stage) -> None:
    survey = Survey(stage.holdings)
    survey.add_commit(SAMPLE.commit)
    assert (survey.complete, survey.all_named) == (False, False)
    asked = fetch(survey, SAMPLE.objects)
    assert sorted(asked) == sorted(SAMPLE.content)
    assert survey.complete
    assert survey.all_named
    assert survey.staged == len(SAMPLE.content)
    assert survey.local == Tally()


def test_directories_are_asked_for_before_files(stage: Stage) -> None:
    survey = Survey(stage.holdings)
    survey.add_commit(SAMPLE.commit)
    kinds = [name.type for name in fetch(survey, SAMPLE.objects)]
    assert kinds == sorted(kinds, key=lambda kind: kind is ObjectType.FILE)


def test_what_is_asked_for_is_awaited_until_it_is_staged(stage: Stage) -> None:
    survey = Survey(stage.holdings)
    survey.add_commit(SAMPLE.commit)
    names = survey.take(10)
    assert len(names) == 2
    assert survey.take(10) == []
    assert (survey.complete, bool(survey.awaited_directories)) == (False, True)
    survey.acknowledge(names)
    assert (survey.complete, bool(survey.awaited_directories)) == (True, False)
    assert not survey.all_named


def test_everything_can_be_asked_for_at_once(stage: Stage) -> None:
    survey = Survey(stage.holdings)
    survey.add_commit(SAMPLE.commit)
    survey.add_dirtree(ROOT, SAMPLE.objects[ROOT])
    waiting = [*survey.missing_metadata, *survey.missing_content]
    assert survey.take_all() == tuple(waiting)
    assert survey.awaited == set(waiting)


@pytest.mark.parametrize("published", [False, True])
def test_of_a_commit_that_is_here_nothing_is_missing(
    stage: Stage, *, published: bool
) -> None:
    put(stage)
    if published:
        publish(stage, SAMPLE)
    survey = Survey(stage.holdings)
    survey.add_commit(SAMPLE.commit)
    assert survey.complete
    assert survey.all_named
    assert survey.local.objects == len(SAMPLE.content)
    assert survey.local.bytes > 0
    assert survey.take_all() == ()


def test_local_directories_are_gone_down_into(stage: Stage) -> None:
    put(stage, DIRTREES)
    survey = Survey(stage.holdings)
    survey.add_commit(SAMPLE.commit)
    assert survey.all_named
    missing = set(SAMPLE.content) - DIRTREES
    assert set(survey.take_all()) == missing


def test_only_what_is_new_of_an_update_is_missing(stage: Stage) -> None:
    put(stage)
    publish(stage, SAMPLE)
    survey = Survey(stage.holdings)
    survey.add_commit(NEXT.commit)
    assert set(fetch(survey, NEXT.objects)) == set(NEXT.content) - set(SAMPLE.content)


def test_beside_a_baseline_what_did_not_change_is_not_looked_for(
    stage: Stage,
) -> None:
    put(stage)
    publish(stage, SAMPLE)
    plain, beside = Survey(stage.holdings), Survey(stage.holdings)
    plain.add_commit(NEXT.commit)
    baseline = stage.holdings.load_complete(SAMPLE.checksum)
    assert baseline is not None
    beside.add_commit(NEXT.commit, baseline)
    expected = fetch(plain, NEXT.objects)
    assert sorted(fetch(beside, NEXT.objects)) == sorted(expected)
    assert beside.local.objects < plain.local.objects


@pytest.mark.parametrize("lost", [None, Checksum("0" * 64), SAMPLE.checksum])
def test_a_commit_that_is_partial_or_not_here_is_no_baseline(
    stage: Stage, lost: Checksum | None
) -> None:
    put(stage)
    publish(stage, SAMPLE)
    Path(stage.target.partial_path(SAMPLE.checksum)).touch()
    assert stage.holdings.load_complete(lost) is None


def test_a_baseline_that_lost_its_directory_saves_nothing(stage: Stage) -> None:
    put(stage)
    publish(stage, SAMPLE)
    os.unlink(stage.target.object_path(ROOT))
    survey = Survey(stage.holdings)
    survey.add_commit(NEXT.commit, SAMPLE.commit)
    assert set(fetch(survey, NEXT.objects)) == set(NEXT.content) - set(SAMPLE.content)


def test_a_second_commit_adds_only_what_the_first_has_not(stage: Stage) -> None:
    survey = Survey(stage.holdings)
    survey.add_commit(SAMPLE.commit)
    first = fetch(survey, SAMPLE.objects)
    survey.add_commit(NEXT.commit)
    second = fetch(survey, NEXT.objects)
    assert not set(first) & set(second)
    assert set(first) | set(second) == set(SAMPLE.content) | set(NEXT.content)


@pytest.mark.parametrize(
    "name, data, kind",
    [
        (ROOT, b"other bytes", IntegrityError),
        (ObjectName(checksum_of(b"no"), ObjectType.DIRTREE), b"no", FormatError),
    ],
)
def test_a_directory_that_is_none_is_refused(
    stage: Stage, name: ObjectName, data: bytes, kind: type[Exception]
) -> None:
    survey = Survey(stage.holdings)
    survey.add_commit(SAMPLE.commit)
    with pytest.raises(kind):
        survey.add_dirtree(name, data)
    assert len(survey.closure.named) == 2


def test_a_directory_that_is_damaged_here_is_an_error(stage: Stage) -> None:
    put(stage)
    Path(stage.repo.object_path(ROOT)).write_bytes(b"torn")
    with pytest.raises(DamagedObjectError):
        Survey(stage.holdings).add_commit(SAMPLE.commit)


class Forgetful(Holdings):
    """Holdings of a repository that is pruned between two looks."""

    def load_dirtree(self, checksum: Checksum) -> DirTree:
        for repo in (self._stage, self._target):
            path = repo.object_path(ObjectName(checksum, ObjectType.DIRTREE))
            if os.path.exists(path):
                os.unlink(path)
        return super().load_dirtree(checksum)


def test_a_directory_pruned_between_two_looks_is_missing(stage: Stage) -> None:
    put(stage)
    survey = Survey(Forgetful(stage.repo, stage.target))
    survey.add_commit(SAMPLE.commit)
    assert list(survey.missing_metadata) == [ROOT]
    assert not survey.complete


def test_what_another_repository_has_is_copied_and_counts_as_local(
    stage: Stage,
) -> None:
    told = []
    elsewhere = {ROOT, *FILES}
    survey = Survey(
        stage.holdings,
        elsewhere=elsewhere.__contains__,
        on_cached=lambda: told.append(1),
    )
    survey.add_commit(SAMPLE.commit)
    assert told == [1]
    assert not survey.complete
    assert list(survey.take_cached()) == [ROOT]
    assert list(survey.take_cached()) == []
    survey.add_dirtree(ROOT, SAMPLE.objects[ROOT])
    survey.acknowledge_copies({ROOT: 100})
    assert survey.local == Tally(1, 100)
    missing = {name.type for name in survey.take_all()}
    assert missing == {ObjectType.DIRTREE, ObjectType.DIRMETA}


def test_what_could_not_be_copied_is_fetched(stage: Stage) -> None:
    survey = Survey(stage.holdings, elsewhere={ROOT}.__contains__)
    survey.add_commit(SAMPLE.commit)
    before = len(survey.missing_metadata)
    survey.miss(survey.take_cached())
    survey.miss([next(iter(FILES))])
    assert len(survey.missing_metadata) == before + 1
    assert len(survey.missing_content) == 1
    assert not survey.awaited


def test_it_says_how_far_it_is(stage: Stage) -> None:
    survey = Survey(stage.holdings)
    survey.add_commit(SAMPLE.commit)
    assert repr(survey) == ("<Survey 2 named, 0 local, 2 missing, 0 awaited, 0 staged>")


def test_a_tally_counts_objects_and_bytes() -> None:
    tally = Tally()
    for size in (5, 0, 7):
        tally.add(size)
    assert tally == Tally(3, 12)
