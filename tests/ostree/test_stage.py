"""The staging store: what gets in, what survives, and what the disk may do to it."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from p2p.errors import (
    ConfigError,
    Error,
    FormatError,
    IntegrityError,
    LimitError,
    LockedError,
    NoSpaceError,
    ReadOnlyError,
    RepositoryError,
)
from p2p.ostree import stage as stage_module
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import STAGE_PATH, Holdings
from p2p.ostree.lock import open_lock, try_lock
from p2p.ostree.objects import (
    MAX_METADATA_BYTES,
    Checksum,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage, clear_store
from tests import killing
from tests.mounts import MakeMount
from tests.oracle import walk_objects
from tests.ostree.samples import MODES, SAMPLE, file_object, make_repo
from tests.trees import MIB

AFTER_A_POWER_CUT = "another boot"
IMPORTS = """
import os, signal
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from tests.ostree.samples import SAMPLE
"""
STAGE_AND_DIE = """
stage = Stage(Repo.open(sys.argv[1]))
for name, data in SAMPLE.objects.items():
    stage.put(name, data)
stage.put_commitmeta(SAMPLE.checksum, b"")
os.kill(os.getpid(), signal.SIGKILL)
"""
RECOVER = f"""
Stage(Repo.open(sys.argv[1]), boot_id={AFTER_A_POWER_CUT!r}).close()
"""


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER)


@pytest.fixture
def stage(repo: Repo) -> Iterator[Stage]:
    with Stage(repo) as opened:
        yield opened


def store(repo: Repo) -> Path:
    return Path(repo.path, STAGE_PATH)


def temporary_files(repo: Repo) -> list[str]:
    """What lies about in the store's scratch directories."""
    found = [p for p in (store(repo) / "tmp").rglob("*") if p.is_file()]
    return sorted(p.name for p in found if p.name != ".lock")


def staged(repo: Repo) -> set[ObjectName]:
    return set(Repo.open(store(repo)).all_objects())


def place(repo: Repo, name: ObjectName) -> Path:
    archive = repo.config.mode is RepoMode.ARCHIVE
    return store(repo) / "objects" / name.path(archive=archive)


def stage_and_die(repo: Repo) -> None:
    done = killing.run(Path(repo.path), IMPORTS + STAGE_AND_DIE, repo.path)
    assert done.returncode == -9, done.stderr


# A power cut cannot take anything from an empty file.
EMPTY = file_object(b"")[0]
TEARABLE = sorted(set(SAMPLE.objects) - {EMPTY})


def tear(path: Path) -> None:
    """Leave of a file what a power cut may leave: its length, or not even that."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        if size > 100:
            file.write(bytes(size))
        else:
            file.truncate(0)


# -- what gets in ----------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_every_object_of_a_commit_is_kept_in_every_mode(
    tmp_path: Path, mode: RepoMode
) -> None:
    repo = make_repo(str(tmp_path / "repo"), mode)
    with Stage(repo) as stage:
        for name, data in SAMPLE.objects.items():
            assert not stage.has(name)
            stage.put(name, data)
            assert stage.has(name)
        assert temporary_files(repo) == []
    report = walk_objects(tmp_path / "repo")
    assert report.problems == ()
    assert report.checked == len(SAMPLE.objects)
    assert staged(repo) == set(SAMPLE.objects)
    assert list(repo.all_objects()) == []


@pytest.mark.parametrize("mode", MODES)
def test_what_is_staged_can_be_read_like_the_repository(
    tmp_path: Path, mode: RepoMode
) -> None:
    repo = make_repo(str(tmp_path / "repo"), mode)
    with Stage(repo) as stage:
        for name, data in SAMPLE.objects.items():
            stage.put(name, data)
        for holdings in (stage.holdings, Holdings.of(repo)):
            for name, data in SAMPLE.objects.items():
                if name.type is ObjectType.FILE:
                    with holdings.open_content(name.checksum) as reader:
                        assert b"".join(reader.canonical()) == data
                else:
                    assert holdings.load_metadata(name) == data


def test_an_object_that_is_staged_already_is_not_written_again(
    repo: Repo, stage: Stage
) -> None:
    name, data = file_object(b"content")
    stage.put(name, data)
    before = place(repo, name).stat().st_ino
    stage.put(name, data)
    assert place(repo, name).stat().st_ino == before


def test_an_object_of_the_repository_is_not_staged_but_a_commit_is(
    repo: Repo, stage: Stage
) -> None:
    """A commit may be there without what it needs."""
    for name, data in SAMPLE.objects.items():
        path = Path(repo.object_path(name))
        path.parent.mkdir(exist_ok=True)
        path.touch()
        stage.put(name, data)
    assert staged(repo) == {SAMPLE.name}


@pytest.mark.parametrize("name", SAMPLE.objects, ids=str)
def test_bytes_of_another_checksum_are_refused(
    repo: Repo, stage: Stage, name: ObjectName
) -> None:
    with pytest.raises(IntegrityError, match=name.checksum):
        stage.put(name, SAMPLE.objects[name] + b"\0")
    assert staged(repo) == set()
    assert temporary_files(repo) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\x01\0\0\0\0",
        b"\0\0\0\0\0\0\0\x01" + bytes(100),
        file_object(b"", target="there")[1] + b"content of a link",
        b"\xff\xff\xff\xff\0\0\0\0" + bytes(100),
    ],
)
def test_a_file_that_is_none_is_refused_though_its_checksum_is_right(
    repo: Repo, stage: Stage, data: bytes
) -> None:
    with pytest.raises(FormatError):
        stage.put(ObjectName(checksum_of(data), ObjectType.FILE), data)
    assert staged(repo) == set()
    assert temporary_files(repo) == []


def test_metadata_larger_than_ostree_takes_is_refused(stage: Stage) -> None:
    data = bytes(MAX_METADATA_BYTES + 1)
    with pytest.raises(LimitError):
        stage.put(ObjectName(checksum_of(data), ObjectType.DIRTREE), data)


def test_detached_metadata_replaces_what_was_there(stage: Stage) -> None:
    for data in (b"one", b"another", b""):
        stage.put_commitmeta(SAMPLE.checksum, data)
        assert stage.holdings.load_commitmeta(SAMPLE.checksum) == data


@pytest.mark.parametrize(
    "name, reason",
    [
        (file_object(mode=0o4755), "4755"),
        (file_object(owner=(5, 6)), "5:6"),
        (file_object(target="x", owner=(5, 6)), "5:6"),
        (file_object(xattrs=((b"user.a", b"1"),)), "xattrs"),
    ],
    ids=["mode", "owner", "owner of a link", "xattrs"],
)
def test_what_a_mode_cannot_hold_is_named_and_not_kept(
    tmp_path: Path, name: tuple[ObjectName, bytes], reason: str
) -> None:
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER_ONLY)
    with Stage(repo) as stage:
        with pytest.raises(RepositoryError, match=f"{name[0]}.*{reason}"):
            stage.put(*name)
        assert temporary_files(repo) == []
    assert staged(repo) == set()


@pytest.mark.root
@pytest.mark.parametrize("target", ["", "a link"], ids=["file", "link"])
def test_an_xattr_that_is_refused_names_the_object_and_leaves_nothing(
    tmp_path: Path, target: str
) -> None:
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE)
    name, data = file_object(target=target, xattrs=((b"nonsense.a", b"1"),))
    with Stage(repo) as stage:
        with pytest.raises(RepositoryError, match=rf"{name}.*nonsense\.a") as caught:
            stage.put(name, data)
        assert "xattr" in str(caught.value)
        assert caught.value.hint
        assert temporary_files(repo) == []
    assert staged(repo) == set()


def test_objects_are_removed_and_those_that_are_gone_are_passed_over(
    repo: Repo, stage: Stage
) -> None:
    name, data = file_object(b"content")
    stage.put(name, data)
    stage.remove([name, name, *SAMPLE.objects])
    assert staged(repo) == set()


# -- the disk ----------------------------------------------------------------------


def test_the_reserve_is_kept_from_the_first_object_on(tmp_path: Path) -> None:
    settings = {"min-free-space-size": "1000000TB"}
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER, settings)
    with Stage(repo) as stage, pytest.raises(NoSpaceError, match="must stay free"):
        stage.put(*file_object(b"content"))
    assert staged(repo) == set()


def test_the_reserve_is_kept_to_the_last_mebibyte(
    tmp_path: Path, tmpfs: MakeMount
) -> None:
    settings = {"min-free-space-size": "10MB"}
    repo = make_repo(str(tmpfs(100 * MIB) / "repo"), RepoMode.BARE_USER, settings)
    with Stage(repo) as stage:
        for number in range(89):
            stage.put(*file_object(bytes([number]) * MIB))
        with pytest.raises(NoSpaceError, match="must stay free"):
            stage.put(*file_object(bytes([255]) * MIB))
    assert len(staged(repo)) == 89


def put_until_full(stage: Stage) -> list[ObjectName]:
    """Stage noise until the disk is full; the error comes through after `kept`."""
    kept: list[ObjectName] = []
    with suppress(NoSpaceError):
        for number in range(60):
            name, data = file_object(os.urandom(50_000 + 7_000 * number))
            stage.put(name, data)
            kept.append(name)
    return kept


def fill(point: Path) -> Path:
    """Leave no byte of a filesystem free; the file that took them."""
    filler = point / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


@pytest.mark.parametrize("mode", MODES)
def test_a_full_disk_ends_in_an_error_and_loses_nothing(
    tmpfs: MakeMount, mode: RepoMode
) -> None:
    point = tmpfs(2 * MIB)
    repo = make_repo(str(point / "repo"), mode, {"min-free-space-percent": "0"})
    name, data = file_object(os.urandom(300_000))
    with Stage(repo) as stage:
        kept = put_until_full(stage)
        assert 5 < len(kept) < 40
        with pytest.raises(NoSpaceError, match=f"{name}.*0.3 MiB are needed"):
            stage.put(name, data)
        assert temporary_files(repo) == []
        assert walk_objects(point / "repo").problems == ()
        stage.remove(kept[:10])
        stage.put(name, data)
    assert staged(repo) == {*kept[10:], name}
    assert walk_objects(point / "repo").problems == ()


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_without_room_for_one_more_file_leaves_no_descriptor_open(
    tmpfs: MakeMount, mode: RepoMode
) -> None:
    point = tmpfs(MIB)
    repo = make_repo(str(point / "repo"), mode, {"min-free-space-percent": "0"})
    with Stage(repo) as stage:
        stage.put(*file_object(b"the first, for the mark and the directories"))
        filler = fill(point)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(5):
            for name, data in (
                file_object(b"x" * (100 + number)),
                file_object(target=f"link {number}"),
            ):
                stage._spare_bytes = MIB  # as when another fills the disk meanwhile
                with suppress(NoSpaceError):
                    stage.put(name, data)
        with pytest.raises(NoSpaceError, match="No space left"):
            stage.put(*file_object(b"x" * 10_000))
        assert len(os.listdir("/proc/self/fd")) == before
        assert temporary_files(repo) == []
        filler.unlink()
    assert walk_objects(point / "repo").problems == ()


def test_a_read_only_filesystem_is_said_to_be_one(tmpfs: MakeMount) -> None:
    point = tmpfs(MIB)
    repo = make_repo(str(point / "repo"), RepoMode.BARE_USER)
    subprocess.run(["mount", "-o", "remount,ro", point], check=True)
    with pytest.raises(ReadOnlyError, match="Read-only"):
        Stage(repo)


@pytest.mark.parametrize("lost", ["tmp", "objects", "state", "refs", "", ".."])
def test_directories_that_somebody_removed_are_made_again(
    repo: Repo, lost: str
) -> None:
    Stage(repo).close()
    shutil.rmtree((store(repo) / lost).resolve())
    with Stage(repo) as stage:
        stage.put(*file_object(b"content"))
    assert len(staged(repo)) == 1


def test_a_link_in_the_place_of_the_store_is_refused(
    tmp_path: Path, repo: Repo
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (Path(repo.path, "extensions") / "p2p").symlink_to(elsewhere)
    with pytest.raises(RepositoryError, match="through a link") as caught:
        Stage(repo)
    assert "Remove" in caught.value.hint
    assert list(elsewhere.iterdir()) == []


def test_a_repository_reached_through_a_link_is_none_the_worse(
    tmp_path: Path, repo: Repo
) -> None:
    (tmp_path / "link").symlink_to(repo.path)
    with Stage(Repo.open(tmp_path / "link")) as stage:
        stage.put(*file_object(b"content"))
    assert len(staged(repo)) == 1


def test_a_store_on_another_filesystem_is_refused(
    tmp_path: Path, tmpfs: MakeMount, repo: Repo
) -> None:
    # As when the objects were moved to a larger disk.
    shutil.rmtree(repo.objects)
    Path(repo.objects).symlink_to(tmpfs(MIB))
    with pytest.raises(RepositoryError, match="another filesystem"):
        Stage(repo)


def test_a_store_of_another_mode_is_refused_with_a_way_out(repo: Repo) -> None:
    Stage(repo).close()
    other = make_repo(f"{repo.path}-2", RepoMode.ARCHIVE)
    shutil.copytree(store(repo), store(other), dirs_exist_ok=True)
    with pytest.raises(ConfigError, match="archive") as caught:
        Stage(other)
    assert f"Remove {store(other)}" in caught.value.hint


def test_split_xattrs_repositories_stage_what_libostree_can_take(
    tmp_path: Path,
) -> None:
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE)
    config = tmp_path / "repo/config"
    text = config.read_text().replace("mode=bare", "mode=bare-split-xattrs")
    config.write_text(text)
    repo = Repo.open(repo.path)
    with Stage(repo) as stage:
        name, data = file_object(b"x", owner=(5, 6), xattrs=((b"user.a", b"1"),))
        stage.put(name, data)
        with Holdings.of(repo).open_content(name.checksum) as reader:
            assert b"".join(reader.canonical()) == data
        assert stage.repo.config.mode is RepoMode.BARE_USER


# -- durability ----------------------------------------------------------------------


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced, in order: `fs`, or the name of a file or directory."""
    made: list[str] = []
    for function in ("syncfs", "sync_file", "sync_directory"):
        real = getattr(stage_module, function)

        def spy(what: int | str, real: object = real) -> None:
            made.append("fs" if isinstance(what, int) else os.path.basename(what))
            assert callable(real)
            real(what)

        monkeypatch.setattr(stage_module, function, spy)
    return made


def test_the_mark_is_durable_before_the_first_object_and_gone_after_a_sync(
    repo: Repo, syncs: list[str]
) -> None:
    state = store(repo) / "state"
    with Stage(repo) as stage:
        assert [p.name for p in state.glob("unsynced-*")] == []
        for name, data in SAMPLE.objects.items():
            stage.put(name, data)
        assert syncs == [""]
        assert len(list(state.glob("unsynced-*"))) == 1
        stage.sync()
        assert syncs == ["", "fs"]
        assert list(state.glob("unsynced-*")) == []
    assert syncs == ["", "fs"]


def test_closing_makes_durable_what_was_not(repo: Repo, syncs: list[str]) -> None:
    with Stage(repo) as stage:
        stage.put(*file_object(b"content"))
    assert syncs == ["", "fs"]
    assert list((store(repo) / "state").glob("unsynced-*")) == []


def test_a_sync_takes_in_what_other_writers_staged(
    repo: Repo, stage: Stage, syncs: list[str]
) -> None:
    # This one has staged nothing itself.
    stage.sync()
    assert syncs == ["fs"]


def test_without_fsync_nothing_but_the_mark_is_synced_and_it_stays(
    tmp_path: Path, syncs: list[str]
) -> None:
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER, {"fsync": "false"})
    with Stage(repo) as stage:
        for name, data in SAMPLE.objects.items():
            stage.put(name, data)
        stage.sync()
    assert syncs == [""]
    assert len(list((store(repo) / "state").glob("unsynced-*"))) == 1
    tear(place(repo, file_object(b"sample\n")[0]))
    with Stage(repo, boot_id=AFTER_A_POWER_CUT):
        assert file_object(b"sample\n")[0] not in staged(repo)


def test_per_object_fsync_syncs_each_file_and_then_the_directories(
    tmp_path: Path, syncs: list[str]
) -> None:
    settings = {"per-object-fsync": "true"}
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER, settings)
    name, data = file_object(b"content")
    link, target = file_object(target="a link")
    with Stage(repo) as stage:
        stage.put(name, data)
        stage.put(link, target)
        assert syncs == ["", "0", "1"]
        stage.sync()
        directories = sorted({name.checksum[:2], link.checksum[:2]})
        assert syncs[3:] == [*directories, "objects"]
        stage.sync()
        assert syncs[3:] == [*directories, "objects", "objects"]
    assert "fs" not in syncs


def test_a_failed_sync_is_not_forgotten(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports it once; later ones would succeed with data lost."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    name, data = file_object(b"content")
    stage = Stage(repo)
    stage.put(name, data)
    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "syncfs", fail)
        with pytest.raises(RepositoryError, match="Input/output"):
            stage.sync()
    with pytest.raises(RepositoryError, match="Input/output"):
        stage.sync()
    with pytest.raises(RepositoryError, match="Input/output"):
        stage.close()
    tear(place(repo, name))
    with Stage(repo):
        assert staged(repo) == set()


# -- crashes and power cuts ------------------------------------------------------------


def test_what_a_killed_writer_staged_is_kept(repo: Repo) -> None:
    stage_and_die(repo)
    before = place(repo, SAMPLE.name).stat().st_ino
    with Stage(repo) as stage:
        assert staged(repo) >= set(SAMPLE.objects)
        for name, data in SAMPLE.objects.items():
            stage.put(name, data)
    assert place(repo, SAMPLE.name).stat().st_ino == before


def test_scratch_files_of_a_killed_writer_are_cleared_away(repo: Repo) -> None:
    stage_and_die(repo)
    scratch = next((store(repo) / "tmp").glob("writer-*"))
    (scratch / "17").write_bytes(b"half an object")
    with Stage(repo):
        assert temporary_files(repo) == []
        assert not scratch.exists()


def test_after_a_power_cut_torn_objects_are_dropped_and_whole_ones_kept(
    repo: Repo,
) -> None:
    stage_and_die(repo)
    torn = TEARABLE[::2]
    for name in torn:
        tear(place(repo, name))
    with Stage(repo, boot_id=AFTER_A_POWER_CUT) as stage:
        assert staged(repo) == set(SAMPLE.objects) - set(torn)
        assert stage.holdings.load_commitmeta(SAMPLE.checksum) is None
    assert walk_objects(Path(repo.path)).problems == ()


@pytest.mark.parametrize("mode", MODES)
def test_files_torn_in_any_way_are_found(tmp_path: Path, mode: RepoMode) -> None:
    repo = make_repo(str(tmp_path / "repo"), mode)
    names = [file_object(bytes([n]) * 3000)[0] for n in range(5)]
    link, linked = file_object(target="somewhere")
    with Stage(repo) as stage:
        for number in range(5):
            stage.put(*file_object(bytes([number]) * 3000))
        stage.put(link, linked)
        places = [place(repo, name) for name in names]
        places[0].write_bytes(b"")
        tear(places[1])
        os.truncate(places[2], places[2].stat().st_size - 1)
        with places[3].open("ab") as file:
            file.write(b"\0")
        assert stage.verify_all() == sorted(names[:4])
    assert staged(repo) == {names[4], link}


def test_an_object_without_its_attribute_is_found(repo: Repo, stage: Stage) -> None:
    name, data = file_object(b"content")
    stage.put(name, data)
    os.removexattr(place(repo, name), "user.ostreemeta")
    assert stage.verify_all() == [name]


def test_what_was_synced_is_not_read_again_after_a_power_cut(repo: Repo) -> None:
    name, data = file_object(b"content")
    with Stage(repo) as stage:
        stage.put(name, data)
    tear(place(repo, name))  # as no power cut can, for want of another sign
    with Stage(repo, boot_id=AFTER_A_POWER_CUT):
        assert staged(repo) == {name}


def test_the_store_is_verified_once_a_boot(repo: Repo) -> None:
    stage_and_die(repo)
    Stage(repo, boot_id=AFTER_A_POWER_CUT).close()
    tear(place(repo, SAMPLE.name))
    with Stage(repo, boot_id=AFTER_A_POWER_CUT):
        assert SAMPLE.name in staged(repo)


def test_a_recovery_that_is_killed_anywhere_is_begun_again(repo: Repo) -> None:
    stage_and_die(repo)
    for name in TEARABLE:
        tear(place(repo, name))
    kept = Path(f"{repo.path}-kept")
    shutil.copytree(store(repo), kept, symlinks=True)
    with killing.killer(Path(repo.path), IMPORTS, RECOVER, repo.path) as killer:
        steps = killer.run()
        assert staged(repo) == {EMPTY}
        for at in range(1, steps + 1):
            shutil.rmtree(store(repo))
            shutil.copytree(kept, store(repo), symlinks=True)
            killer.run(at)
            with Stage(repo, boot_id=AFTER_A_POWER_CUT):
                assert staged(repo) == {EMPTY}, f"killed at step {at}"


def test_refs_that_a_killed_publisher_left_in_the_store_go(repo: Repo) -> None:
    stage_and_die(repo)
    refs = store(repo) / "refs/heads/a/b"
    refs.parent.mkdir(parents=True)
    refs.write_text(f"{SAMPLE.checksum}\n")
    with Stage(repo, boot_id=AFTER_A_POWER_CUT) as stage:
        assert list(stage.repo.refs.all()) == []


# -- clearing ----------------------------------------------------------------------


def test_what_unfinished_pulls_left_can_be_cleared_away(repo: Repo) -> None:
    with Stage(repo) as stage:
        for name, data in SAMPLE.objects.items():
            stage.put(name, data)
        stage.put_commitmeta(SAMPLE.checksum, b"")
        with pytest.raises(LockedError):
            clear_store(repo)
    assert clear_store(repo) == len(SAMPLE.objects) + 1
    assert staged(repo) == set()
    assert clear_store(repo) == 0


def test_a_store_that_was_never_made_is_clear(repo: Repo) -> None:
    assert clear_store(repo) == 0


# -- several at once -----------------------------------------------------------------


def test_two_writers_share_a_store(repo: Repo) -> None:
    first, second = list(SAMPLE.objects.items())[:2]
    with Stage(repo) as one, Stage(repo) as other:
        one.put(*first)
        other.put(*second)
        assert one.has(second[0])
        assert other.has(first[0])
    assert staged(repo) == {first[0], second[0]}


def test_nobody_enters_while_the_store_is_being_cleared(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "_RECOVERY_SECONDS", 0.05)
    Stage(repo).close()
    lock = str(store(repo) / ".lock")
    fd = open_lock(lock, exclusive=True, timeout_seconds=0)
    with pytest.raises(LockedError, match="still locked"):
        Stage(repo)
    os.close(fd)
    Stage(repo).close()


def test_the_store_cannot_be_cleared_while_a_writer_has_it(repo: Repo) -> None:
    with Stage(repo):
        fd = os.open(store(repo) / ".lock", os.O_RDWR)
        assert not try_lock(fd, exclusive=True)
    assert try_lock(fd, exclusive=True)
    os.close(fd)


def test_a_recovery_waits_for_whoever_works_in_the_store(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "_RECOVERY_SECONDS", 0.05)
    with Stage(repo), pytest.raises(LockedError):
        Stage(repo, boot_id=AFTER_A_POWER_CUT)
    Stage(repo, boot_id=AFTER_A_POWER_CUT).close()


def test_of_two_that_wait_to_recover_the_second_finds_it_done(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_and_die(repo)
    real = Stage._is_recovered
    asked: list[bool] = []

    def is_recovered(stage: Stage) -> bool:
        asked.append(real(stage))
        if len(asked) == 1:
            # Another one was waiting for the lock too, and came first.
            Path(stage._state_path("boot")).write_text(AFTER_A_POWER_CUT)
        return asked[-1]

    monkeypatch.setattr(Stage, "_is_recovered", is_recovered)
    tear(place(repo, SAMPLE.name))
    with Stage(repo, boot_id=AFTER_A_POWER_CUT):
        assert asked == [False, True]
        assert SAMPLE.name in staged(repo)


def test_a_recovery_that_fails_lets_go_of_the_store(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    stage_and_die(repo)
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "syncfs", fail)
        with pytest.raises(RepositoryError, match="Input/output"):
            Stage(repo, boot_id=AFTER_A_POWER_CUT)
    assert len(os.listdir("/proc/self/fd")) == before
    Stage(repo, boot_id=AFTER_A_POWER_CUT).close()


def test_a_store_that_cannot_be_opened_leaves_nothing_open(repo: Repo) -> None:
    Stage(repo).close()
    shutil.rmtree(store(repo) / "tmp")
    (store(repo) / "tmp").write_text("no directory")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Error):
        Stage(repo)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_object_published_while_it_is_verified_is_no_damage(
    repo: Repo, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, data = file_object(b"content")
    stage.put(name, data)
    gone = ObjectName(Checksum("0" * 64), ObjectType.FILE)
    monkeypatch.setattr(stage.repo, "all_objects", lambda: iter([gone, name]))
    assert stage.verify_all() == []
