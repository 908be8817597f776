"""From the staging store into the repository: complete and durable, or not at all."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2p.errors import (
    DamagedObjectError,
    LimitError,
    LockedError,
    NoSpaceError,
    ObjectNotFoundError,
    RepositoryError,
)
from p2p.ostree import publish as publish_module
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.lock import locked
from p2p.ostree.objects import (
    Commit,
    DirMeta,
    DirTree,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.publish import NativePublisher, NewCommit, Publication
from p2p.ostree.refs import RefPath, head, remote_ref
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from p2p.ostree.summary import parse_summary
from tests import killing
from tests.mounts import MakeMount
from tests.oracle import closure, dangling, walk_objects
from tests.ostree.samples import MODES, SAMPLE, TREE, Sample, make_repo, sample
from tests.trees import MIB

MAIN = remote_ref("o", "main")
NEXT = sample(
    {**TREE, "new": b"new"}, parent=SAMPLE, timestamp=SAMPLE.commit.timestamp + 1
)
FILES = sorted(name for name in SAMPLE.objects if name.type is ObjectType.FILE)
TREES = sorted(name for name in SAMPLE.objects if name.type is ObjectType.DIRTREE)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER)


def put(stage: Stage, *samples: Sample) -> None:
    for each in samples:
        for name, data in each.objects.items():
            stage.put(name, data)


def publication(
    *samples: Sample,
    ref: RefPath | None = MAIN,
    detached: bytes | None = None,
    metadata_only: bool = False,
    fsync: bool = True,
) -> Publication:
    """These commits, the ref set to the last."""
    return Publication(
        commits=tuple(
            NewCommit(checksum=each.checksum, commit=each.commit, detached=detached)
            for each in samples
        ),
        refs=((ref, samples[-1].checksum),) if ref is not None else (),
        metadata_only=metadata_only,
        fsync=fsync,
    )


def publish(stage: Stage, what: Publication) -> None:
    NativePublisher(stage).publish(what)


def put_and_publish(
    repo: Repo, *samples: Sample, detached: bytes | None = None
) -> None:
    with Stage(repo) as stage:
        put(stage, *samples)
        publish(stage, publication(*samples, detached=detached))


def staged(stage: Stage) -> list[ObjectName]:
    return list(stage.repo.all_objects())


def assert_sound(repo: Repo) -> None:
    """Every object is what its name says, and nothing points at what is not there."""
    path = Path(repo.path)
    assert walk_objects(path).problems == ()
    assert dangling(path) == []


def assert_complete(repo: Repo, *samples: Sample) -> None:
    assert_sound(repo)
    for each in samples:
        assert closure(Path(repo.path), each.checksum).missing == frozenset()
        assert not repo.is_partial(each.checksum)


def assert_untouched(repo: Repo) -> None:
    assert list(repo.all_objects()) == []
    assert list(repo.refs.all()) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_commit_with_all_its_objects_becomes_visible(
    tmp_path: Path, mode: RepoMode
) -> None:
    repo = make_repo(str(tmp_path / "repo"), mode)
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        publish(stage, publication(SAMPLE, detached=b""))
        assert staged(stage) == []
    assert_complete(repo, SAMPLE)
    detached = ObjectName(SAMPLE.checksum, ObjectType.COMMITMETA)
    assert set(repo.all_objects()) == {*SAMPLE.objects, detached}
    assert repo.refs.get(MAIN) == SAMPLE.checksum


def test_a_second_commit_adds_what_the_first_did_not_have(repo: Repo) -> None:
    put_and_publish(repo, SAMPLE)
    with Stage(repo) as stage:
        for name, data in NEXT.objects.items():
            if not repo.has(name):
                stage.put(name, data)
        publish(stage, publication(NEXT))
        assert staged(stage) == []
    assert_complete(repo, SAMPLE, NEXT)
    assert repo.refs.get(MAIN) == NEXT.checksum


def test_several_commits_are_published_at_once(repo: Repo) -> None:
    put_and_publish(repo, SAMPLE, NEXT)
    assert_complete(repo, SAMPLE, NEXT)


def test_publishing_again_changes_nothing(repo: Repo) -> None:
    put_and_publish(repo, SAMPLE)
    before = {name: os.lstat(repo.object_path(name)) for name in SAMPLE.objects}
    put_and_publish(repo, SAMPLE)
    for name, status in before.items():
        assert os.lstat(repo.object_path(name)).st_ino == status.st_ino


def test_without_a_ref_the_commit_is_there_all_the_same(repo: Repo) -> None:
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        publish(stage, publication(SAMPLE, ref=None))
    assert_complete(repo, SAMPLE)
    assert list(repo.refs.all()) == []


def test_unfinished_objects_of_another_pull_stay_in_the_store(repo: Repo) -> None:
    with Stage(repo) as stage:
        put(stage, NEXT, SAMPLE)
        publish(stage, publication(SAMPLE))
        assert set(staged(stage)) == set(NEXT.objects) - set(SAMPLE.objects)


@pytest.mark.parametrize("lost", ["objects", "refs", "state", "tmp"])
def test_directories_that_are_missing_are_made(repo: Repo, lost: str) -> None:
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        shutil.rmtree(Path(repo.path, lost))
        (Path(repo.path) / "objects").mkdir(exist_ok=True)
        publish(stage, publication(SAMPLE, metadata_only=True))
        publish_all = publication(SAMPLE, detached=b"")
        put(stage, SAMPLE)
        publish(stage, publish_all)
    assert_complete(repo, SAMPLE)


# -- something is missing ----------------------------------------------------------


@pytest.mark.parametrize("name", [*FILES, *TREES], ids=str)
def test_without_one_object_nothing_is_published(repo: Repo, name: ObjectName) -> None:
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        stage.remove([name])
        with pytest.raises(ObjectNotFoundError, match=name.checksum):
            publish(stage, publication(SAMPLE))
        assert_untouched(repo)
        stage.put(name, SAMPLE.objects[name])
        publish(stage, publication(SAMPLE))
    assert_complete(repo, SAMPLE)


def test_without_the_commit_itself_no_ref_is_set(repo: Repo) -> None:
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        stage.remove([SAMPLE.name])
        with pytest.raises(ObjectNotFoundError, match=SAMPLE.checksum):
            publish(stage, publication(SAMPLE))
    assert list(repo.refs.all()) == []
    assert_sound(repo)


def test_a_damaged_directory_is_not_published(repo: Repo) -> None:
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        Path(stage.repo.object_path(TREES[0])).write_bytes(b"torn")
        with pytest.raises(DamagedObjectError):
            publish(stage, publication(SAMPLE))
    assert_untouched(repo)


def while_locked(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]
) -> None:
    """Let something happen between the plan and the moment the lock is taken."""

    @contextmanager
    def lock(*, exclusive: bool) -> Iterator[None]:
        act()
        with locked(f"{repo.path}/.lock", exclusive=exclusive, timeout_seconds=0):
            yield

    monkeypatch.setattr(repo, "lock", lock)


def test_what_was_pruned_before_the_lock_was_taken_is_missed(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_and_publish(repo, SAMPLE)
    repo.refs.delete(MAIN)
    (name, *_) = sorted(set(SAMPLE.objects) & set(NEXT.objects))
    while_locked(repo, monkeypatch, lambda: os.unlink(repo.object_path(name)))
    with Stage(repo) as stage:
        put(stage, NEXT)
        stage.remove(SAMPLE.objects)
        with pytest.raises(ObjectNotFoundError, match=f"{name}") as caught:
            publish(stage, publication(NEXT))
        assert "pull again" in caught.value.hint
        assert NEXT.name in staged(stage)
    assert not repo.has(NEXT.name)


@pytest.mark.parametrize(
    "prune",
    [
        lambda repo: os.unlink(repo.object_path(SAMPLE.name)),
        lambda repo: Path(repo.partial_path(SAMPLE.checksum)).touch(),
    ],
    ids=["gone", "partial"],
)
def test_a_commit_whose_directories_were_passed_over_must_still_be_whole(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, prune: Callable[[Repo], object]
) -> None:
    put_and_publish(repo, SAMPLE)
    while_locked(repo, monkeypatch, lambda: prune(repo))
    with Stage(repo) as stage:
        put(stage, NEXT)
        stage.remove(SAMPLE.objects)
        with pytest.raises(ObjectNotFoundError, match=f"{SAMPLE.name}"):
            publish(stage, publication(NEXT))
        assert NEXT.name in staged(stage)
    assert repo.refs.get(MAIN) == SAMPLE.checksum
    assert not repo.has(NEXT.name)


def test_what_another_writer_published_meanwhile_is_as_good(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repo.open(repo.path)
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        while_locked(repo, monkeypatch, lambda: put_and_publish(other, SAMPLE))
        publish(stage, publication(SAMPLE))
    assert_complete(repo, SAMPLE)
    assert repo.refs.get(MAIN) == SAMPLE.checksum


def test_what_another_writer_published_and_prune_took_is_missed(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        while_locked(repo, monkeypatch, lambda: stage.remove([FILES[0]]))
        with pytest.raises(ObjectNotFoundError, match=FILES[0].checksum):
            publish(stage, publication(SAMPLE))
    assert_sound(repo)
    assert list(repo.refs.all()) == []


def test_a_directory_bomb_is_not_published(repo: Repo) -> None:
    objects = {}
    meta = DirMeta(0, 0, stat.S_IFDIR | 0o755).serialize()
    objects[ObjectName(checksum_of(meta), ObjectType.DIRMETA)] = meta
    tree = DirTree().serialize()
    for _ in range(29):
        below = checksum_of(tree)
        objects[ObjectName(below, ObjectType.DIRTREE)] = tree
        names = (("a", below, checksum_of(meta)), ("b", below, checksum_of(meta)))
        tree = DirTree((), names).serialize()
    commit = Commit(
        root_dirtree=checksum_of(tree), root_dirmeta=checksum_of(meta), timestamp=0
    ).serialize()
    objects[ObjectName(checksum_of(tree), ObjectType.DIRTREE)] = tree
    objects[ObjectName(checksum_of(commit), ObjectType.COMMIT)] = commit
    bomb = Sample(checksum_of(commit), objects)
    with Stage(repo) as stage:
        put(stage, bomb)
        with pytest.raises(LimitError, match="paths"):
            publish(stage, publication(bomb))
    assert_untouched(repo)


def test_what_the_parent_repository_has_need_not_be_staged(
    tmp_path: Path, repo: Repo
) -> None:
    put_and_publish(repo, SAMPLE)
    child = make_repo(
        str(tmp_path / "child"), RepoMode.BARE_USER, {"parent": repo.path}
    )
    with Stage(child) as stage:
        for name, data in NEXT.objects.items():
            if not stage.holdings.has(name):
                stage.put(name, data)
        publish(stage, publication(NEXT))
    assert child.refs.get(MAIN) == NEXT.checksum
    assert sorted(child.all_objects()) == sorted(
        set(NEXT.objects) - set(SAMPLE.objects)
    )


# -- partial commits -----------------------------------------------------------------


def test_metadata_only_leaves_a_partial_commit(repo: Repo) -> None:
    with Stage(repo) as stage:
        stage.put(SAMPLE.name, SAMPLE.data)
        publish(stage, publication(SAMPLE, metadata_only=True))
    assert repo.is_partial(SAMPLE.checksum)
    assert list(repo.all_objects()) == [SAMPLE.name]
    assert repo.refs.get(MAIN) == SAMPLE.checksum
    assert_sound(repo)


def test_a_partial_commit_is_completed(repo: Repo) -> None:
    with Stage(repo) as stage:
        stage.put(SAMPLE.name, SAMPLE.data)
        publish(stage, publication(SAMPLE, metadata_only=True))
        for name, data in SAMPLE.content.items():
            stage.put(name, data)
        publish(stage, publication(SAMPLE))
    assert_complete(repo, SAMPLE)


def test_a_partial_commit_is_not_taken_for_complete(repo: Repo) -> None:
    with Stage(repo) as stage:
        stage.put(SAMPLE.name, SAMPLE.data)
        publish(stage, publication(SAMPLE, metadata_only=True))
        with pytest.raises(ObjectNotFoundError):
            publish(stage, publication(SAMPLE))
    assert repo.is_partial(SAMPLE.checksum)


def test_a_complete_commit_does_not_become_partial(repo: Repo) -> None:
    put_and_publish(repo, SAMPLE)
    with Stage(repo) as stage:
        stage.put(SAMPLE.name, SAMPLE.data)
        publish(stage, publication(SAMPLE, metadata_only=True))
    assert_complete(repo, SAMPLE)


def test_a_commit_that_was_deleted_here_loses_its_tombstone(repo: Repo) -> None:
    tombstone = ObjectName(SAMPLE.checksum, ObjectType.TOMBSTONE_COMMIT)
    place = Path(repo.object_path(tombstone))
    place.parent.mkdir()
    place.write_bytes(b"")
    put_and_publish(repo, SAMPLE)
    assert not repo.is_tombstoned(SAMPLE.checksum)


# -- detached metadata ---------------------------------------------------------------


def test_detached_metadata_is_what_was_verified_not_what_is_staged(repo: Repo) -> None:
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        stage.put_commitmeta(SAMPLE.checksum, b"somebody else's")
        publish(stage, publication(SAMPLE, detached=b"verified"))
        assert staged(stage) == []
    assert repo.load_commitmeta(SAMPLE.checksum) == b"verified"


def test_detached_metadata_is_replaced_and_otherwise_left_alone(repo: Repo) -> None:
    name = ObjectName(SAMPLE.checksum, ObjectType.COMMITMETA)
    put_and_publish(repo, SAMPLE, detached=b"one")
    put_and_publish(repo, SAMPLE, detached=b"two")
    assert repo.load_commitmeta(SAMPLE.checksum) == b"two"
    before = os.stat(repo.object_path(name))
    assert stat.S_IMODE(before.st_mode) == 0o644
    put_and_publish(repo, SAMPLE, detached=b"two")
    put_and_publish(repo, SAMPLE, detached=None)
    assert os.stat(repo.object_path(name)).st_ino == before.st_ino


# -- order and durability ------------------------------------------------------------


@pytest.fixture
def events(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made durable and what becomes visible, in order."""
    made: list[str] = []

    def spy(owner: object, function: str, describe: Callable[..., str]) -> None:
        real = getattr(owner, function)

        def note(*arguments: object, **options: object) -> object:
            made.append(describe(*arguments))
            return real(*arguments, **options)

        monkeypatch.setattr(owner, function, note)

    def kind(path: str) -> str:
        return path.rpartition(".")[2] if "." in os.path.basename(path) else path

    spy(Stage, "sync", lambda _: "sync of the store")
    spy(publish_module, "_link", lambda _, place: f"link {kind(place)}")
    spy(publish_module, "sync_directory", lambda _: "sync directory")
    spy(publish_module, "sync_file", lambda _: "sync file")
    spy(os, "rename", lambda _, place: f"rename {kind(place)}")
    spy(repo.refs, "set", lambda *_: "set ref")
    return made


def test_each_step_is_durable_before_the_next_is_visible(
    repo: Repo, events: list[str]
) -> None:
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        events.clear()
        publish(stage, publication(SAMPLE, detached=b"signed"))
        order = list(dict.fromkeys(events))
        assert order[0] == "sync of the store"
        last_child = max(i for i, e in enumerate(events) if "dir" in e and "link" in e)
        first_sync = events.index("sync directory")
        assert last_child < first_sync
        tail = events[events.index("sync file") :]
        ref = tail.index("set ref")
        assert tail[:ref] == [
            "sync file",
            "rename commitmeta",
            "sync directory",
            "link commit",
            "sync directory",
            "sync directory",
        ]


def test_at_no_moment_is_an_object_in_neither_place(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader looks into the store first and then into the repository."""
    looked = 0

    def look() -> None:
        nonlocal looked
        looked += 1
        holdings = Holdings.of(repo)
        assert [name for name in SAMPLE.objects if not holdings.has(name)] == []
        assert dangling(Path(repo.path)) == []

    def looking(function: str) -> None:
        real = getattr(os, function)

        def call(*arguments: object, **options: object) -> object:
            look()
            result = real(*arguments, **options)
            look()
            return result

        monkeypatch.setattr(os, function, call)

    with Stage(repo) as stage:
        put(stage, SAMPLE)
        for function in ("link", "rename", "unlink"):
            looking(function)
        publish(stage, publication(SAMPLE, detached=b""))
        monkeypatch.undo()
    assert looked > 4 * len(SAMPLE.objects)


@pytest.mark.parametrize("settings", [{"fsync": "false"}, {}])
def test_nothing_is_synced_where_nobody_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER, settings)
    made: list[str] = []
    for function in ("sync_directory", "sync_file"):
        monkeypatch.setattr(publish_module, function, made.append)
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        monkeypatch.setattr(stage, "sync", lambda: made.append("store"))
        what = publication(SAMPLE, detached=b"", fsync=bool(settings))
        publish(stage, what)
        assert made == []
        monkeypatch.undo()
    assert_complete(repo, SAMPLE)


def test_a_failed_sync_publishes_nothing(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RepositoryError("Input/output error")

    with Stage(repo) as stage:
        put(stage, SAMPLE)
        with monkeypatch.context() as patch:
            patch.setattr(stage, "sync", fail)
            with pytest.raises(RepositoryError, match="Input/output"):
                publish(stage, publication(SAMPLE))
    assert_untouched(repo)


IMPORTS = """
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from tests.ostree.test_publish import SMALL, publication, publish
"""
PUBLISH = """
with Stage(Repo.open(sys.argv[1])) as stage:
    publish(stage, publication(SMALL, detached=b""))
"""
SMALL = sample({"a": b"a", "d": {"b": b"b"}})


def test_a_publisher_killed_anywhere_leaves_nothing_dangling(repo: Repo) -> None:
    path = Path(repo.path)
    with Stage(repo) as stage:
        put(stage, SMALL)
    kept = path.parent / "kept"
    shutil.copytree(path, kept, symlinks=True)
    with killing.killer(path, IMPORTS, PUBLISH, repo.path) as killer:
        steps = killer.run()
        assert_complete(repo, SMALL)
        for at in range(1, steps + 1):
            shutil.rmtree(path)
            shutil.copytree(kept, path, symlinks=True)
            killer.run(at)
            assert_sound(repo)
            with Stage(repo) as stage:
                lost = [n for n in SMALL.objects if not stage.holdings.has(n)]
                assert lost == [], f"killed at step {at}"
                publish(stage, publication(SMALL, detached=b""))
                assert staged(stage) == []
            assert_complete(repo, SMALL)
            assert repo.refs.get(MAIN) == SMALL.checksum
    assert steps > 20


# -- locks, space, summary -------------------------------------------------------------


def test_a_repository_that_stays_locked_is_waited_for_and_then_given_up(
    tmp_path: Path,
) -> None:
    settings = {"lock-timeout-secs": "1"}
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER, settings)
    lock = f"{repo.path}/.lock"
    with Stage(repo) as stage:
        with locked(lock, exclusive=True, timeout_seconds=0):
            put(stage, SAMPLE)
            with pytest.raises(LockedError, match="after 1 seconds"):
                publish(stage, publication(SAMPLE))
        assert_untouched(repo)
        with locked(lock, exclusive=False, timeout_seconds=0):
            publish(stage, publication(SAMPLE))
    assert_complete(repo, SAMPLE)


def test_a_repository_without_locking_is_not_locked(tmp_path: Path) -> None:
    settings = {"locking": "false", "lock-timeout-secs": "0"}
    repo = make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER, settings)
    with locked(f"{repo.path}/.lock", exclusive=True, timeout_seconds=0):
        put_and_publish(repo, SAMPLE)
    assert_complete(repo, SAMPLE)


def test_a_full_disk_sets_no_ref_and_a_second_try_succeeds(tmpfs: MakeMount) -> None:
    point = tmpfs(MIB)
    settings = {"min-free-space-percent": "0"}
    repo = make_repo(str(point / "repo"), RepoMode.BARE_USER, settings)
    filler = point / "filler"
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        free = os.statvfs(point).f_bavail * 4096
        filler.write_bytes(bytes(free))
        with pytest.raises(NoSpaceError):
            publish(stage, publication(SAMPLE, detached=b"x" * 10_000))
        assert list(repo.refs.all()) == []
        assert_sound(repo)
        filler.unlink()
        publish(stage, publication(SAMPLE, detached=b""))
    assert_complete(repo, SAMPLE)


def test_a_ref_that_is_in_the_way_of_another_is_an_error(repo: Repo) -> None:
    put_and_publish(repo, SAMPLE)
    with Stage(repo) as stage:
        put(stage, NEXT)
        with pytest.raises(RepositoryError, match="in its way"):
            publish(stage, publication(NEXT, ref=RefPath(f"{MAIN}/below")))
    assert_sound(repo)


@pytest.mark.parametrize("key", ["auto-update-summary", "commit-update-summary"])
def test_a_summary_is_made_where_the_configuration_asks_for_it(
    tmp_path: Path, key: str
) -> None:
    repo = make_repo(str(tmp_path / "repo"), RepoMode.ARCHIVE, {key: "true"})
    with Stage(repo) as stage:
        put(stage, SAMPLE)
        publish(stage, publication(SAMPLE, ref=None))
        assert not Path(repo.path, "summary").exists()
        publish(stage, publication(SAMPLE, ref=head("main")))
    summary = parse_summary(Path(repo.path, "summary").read_bytes())
    entry = summary.find("main")
    assert entry is not None
    assert entry.commit == SAMPLE.checksum


def test_without_that_setting_there_is_no_summary(repo: Repo) -> None:
    put_and_publish(repo, SAMPLE)
    assert not Path(repo.path, "summary").exists()
