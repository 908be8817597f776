"""The journal of updates: exact, bounded, and never misread."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.deploy.journal import (
    MAX_BAD,
    MAX_BYTES,
    MAX_EVENTS,
    Event,
    Journal,
    NewerVersionError,
    decode,
    encode,
)
from p2p.deploy.journal_file import JournalFile, journal_path, read_journal
from p2p.deploy.machine import Job, Step
from p2p.errors import FormatError, LockedError, RepositoryError
from p2p.ostree.objects import Checksum
from tests import killing

COMMITS = tuple(Checksum(f"{number:064x}") for number in range(100))
JOB = Job(refspec="o:main", commit=COMMITS[1], before=COMMITS[0], boot="b")


def journal_of(*steps: Step) -> Journal:
    journal = Journal()
    for time, step in enumerate(steps):
        journal = journal.with_job(replace(JOB, step=step, cause="c"), time=time)
    return journal


# -- what it holds ---------------------------------------------------------------------


def test_every_step_is_an_event_with_its_time_and_cause() -> None:
    journal = journal_of(Step.PLAN, Step.FETCHED, Step.FETCHED)
    journal = journal.with_note("a word", time=9.5, boot="z")
    assert [(e.number, e.time, e.step, e.cause) for e in journal.events] == [
        (1, 0, Step.PLAN, "c"),
        (2, 1, Step.FETCHED, "c"),
        (3, 9.5, None, "a word"),
    ]
    again = journal.with_job(replace(JOB, step=Step.FETCHED, tries=3), time=4)
    assert again.job is not None
    assert again.job.tries == 3


def test_events_and_bad_commits_are_the_last_of_many() -> None:
    journal = Journal()
    for number in range(MAX_EVENTS + 5):
        journal = journal.with_note("n" * 9000, time=number, boot="b")
    for commit in COMMITS[: MAX_BAD + 3]:
        journal = journal.with_job(replace(JOB, commit=commit, bad=True), time=0)
    assert len(journal.events) == MAX_EVENTS
    assert journal.events[-1].number == MAX_EVENTS + 5 + MAX_BAD + 3
    assert journal.bad == COMMITS[3 : MAX_BAD + 3]
    assert len(encode(journal)) < MAX_BYTES
    assert decode(encode(journal)) == journal


def test_a_bad_commit_is_named_once_until_somebody_forgives_it() -> None:
    journal = Journal()
    for step in (Step.ROLLING_BACK, Step.ROLLED_BACK):
        journal = journal.with_job(replace(JOB, step=step, bad=True), time=0)
    assert journal.bad == (JOB.commit,)
    assert journal.forgiven(JOB.commit).bad == ()


# -- as bytes --------------------------------------------------------------------------


def test_what_was_written_is_read() -> None:
    for journal in (
        Journal(),
        journal_of(*Step),
        Journal(job=replace(JOB, before=None, passed=True, staged=True, asked="x")),
        Journal(uncounted=True).with_note("n", time=0.5, boot=""),
    ):
        assert decode(encode(journal)) == journal


def damaged(**changes: object) -> bytes:
    record = json.loads(encode(journal_of(Step.PLAN)))
    for path, value in changes.items():
        place = record
        *above, last = path.split("__")
        for key in above:
            place = place[int(key[1:]) if key.startswith("i") else key]
        place[last] = value
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"[]",
        b'{"version": 1}',
        b" " * (MAX_BYTES + 1),
        damaged(version=0),
        damaged(version="2"),
        damaged(bad=["x"]),
        damaged(bad=[7]),
        damaged(job=7),
        damaged(job__commit="0"),
        damaged(job__step="sleeping"),
        damaged(job__step=7),
        damaged(job__tries="1"),
        damaged(events=[7]),
        damaged(events__i0__step=[]),
        damaged(events__i0__time="now"),
        damaged(version=2, bad=["x"]),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_journal_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_journal_or_an_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data)


def test_of_a_newer_version_only_what_failed_is_believed() -> None:
    data = {"version": 7, "bad": [COMMITS[5]], "job": "of a form of its own"}
    with pytest.raises(NewerVersionError, match="rolled back") as caught:
        decode(json.dumps(data).encode())
    assert caught.value.bad == (COMMITS[5],)


# -- on the disk -----------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(journal_path(str(tmp_path), "/"))


def test_it_is_kept_readable_without_a_lock(path: Path) -> None:
    assert read_journal(str(path)) == Journal()
    file = JournalFile(str(path))
    with file.changing(timeout_seconds=0):
        file.save(journal_of(Step.PLAN))
        assert read_journal(str(path)) == journal_of(Step.PLAN)
    again = JournalFile(str(path))
    with again.changing(timeout_seconds=0):
        assert again.journal == journal_of(Step.PLAN)
        assert again.replaced == ""


def test_one_at_a_time_changes_it(path: Path) -> None:
    with JournalFile(str(path)).changing(timeout_seconds=0):
        other = JournalFile(str(path))
        with pytest.raises(LockedError), other.changing(timeout_seconds=0):
            pass


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("why", ["damaged", "newer"])
def test_what_cannot_be_read_is_set_aside_and_explained(
    path: Path, why: str, twice: bool
) -> None:
    path.parent.mkdir(parents=True)
    bad = [COMMITS[5]] if why == "newer" else []
    data = json.dumps({"version": 2, "bad": bad}) if bad else "nonsense"
    path.write_text(data)
    if twice:
        path.with_name(f"{path.name}.{why}").write_text("an older one")
    with pytest.raises(FormatError):
        read_journal(str(path))
    file = JournalFile(str(path))
    with file.changing(timeout_seconds=0):
        assert file.journal == Journal(bad=tuple(bad))
        assert file.replaced
    assert path.with_name(f"{path.name}.{why}").read_text() == data
    assert read_journal(str(path)) == Journal(bad=tuple(bad))


def test_the_disks_word_is_an_error_of_ours(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(RepositoryError):
        read_journal(str(path))
    gone = JournalFile("/proc/nothing/journal.json")
    with pytest.raises(RepositoryError), gone.changing(timeout_seconds=0):
        pass


WRITE = """
file = JournalFile(sys.argv[1])
with file.changing(timeout_seconds=0):
    file.save(file.journal.with_note("new", time=1, boot="b"))
"""
IMPORTS = "from p2p.deploy.journal_file import JournalFile\n"


@pytest.mark.parametrize("before", ["good", "damaged", "newer"])
def test_killed_at_any_step_of_a_change_it_is_the_old_or_the_new(
    path: Path, tmp_path: Path, before: str
) -> None:
    path.parent.mkdir(parents=True)
    old = Journal().with_note("old", time=0, boot="b")
    newer = json.dumps({"version": 2, "bad": [COMMITS[5]]}).encode()
    start = {"good": encode(old), "damaged": b"{", "newer": newer}[before]
    bad = (COMMITS[5],) if before == "newer" else ()
    with killing.killer(path.parent, IMPORTS, WRITE, str(path)) as killer:
        path.write_bytes(start)
        steps = killer.run()
        assert steps >= 3
        for at in range(1, steps + 1):
            for each in path.parent.iterdir():
                each.unlink()
            path.write_bytes(start)
            killer.run(at)
            file = JournalFile(str(path))
            with file.changing(timeout_seconds=5):
                causes = [event.cause for event in file.journal.events]
                assert causes in ([], ["old"], ["new"], ["old", "new"]), at
                assert file.journal.bad == bad, at
                assert before != "good" or "old" in causes, at


def test_places_have_journals_of_their_own(tmp_path: Path) -> None:
    repo = str(tmp_path)
    assert journal_path(repo, "/a") != journal_path(repo, "/b")
    os.symlink("/a", tmp_path / "link")
    assert journal_path(repo, f"{tmp_path}/link") == journal_path(repo, "/a")


def test_an_event_has_what_people_ask_for() -> None:
    (event,) = journal_of(Step.PLAN).events
    assert event == Event(
        number=1,
        time=0,
        boot="b",
        step=Step.PLAN,
        refspec="o:main",
        commit=JOB.commit,
        cause="c",
    )
