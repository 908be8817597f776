"""The writer carries out what it can verify, in both its forms alike."""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from p2p.agent.writing import Writer
from p2p.errors import (
    BindingError,
    ConfigError,
    Error,
    FormatError,
    FutureError,
    LimitError,
    NoSpaceError,
    ObjectNotFoundError,
    ReadOnlyError,
    RepositoryError,
    RollbackError,
    SignatureError,
    UnsignedError,
)
from p2p.ostree.holdings import STAGE_PATH
from p2p.ostree.messages import (
    AbortObject,
    AddPiece,
    BeginObject,
    Done,
    Failed,
    Form,
    KeepSummary,
    Publish,
    Request,
    StageObjects,
    StageSignatures,
    Sync,
)
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.refs import RefPath, head, mirror_ref, remote_ref
from p2p.ostree.repo import Repo
from p2p.ostree.summary import Summary
from p2p.trust.clock import RELEASED
from p2p.writer.service import MAX_UPLOADS, WriterService
from tests.oracle import closure, dangling, walk_objects
from tests.ostree.samples import (
    SAMPLE,
    TIME,
    TREE,
    Sample,
    file_object,
    filez,
    sample,
)
from tests.trust.samples import ALICE, BOB, signed

MAIN = remote_ref("o", "main")
OLD = sample({"old": b"old"}, timestamp=TIME - 1)
NEXT = sample({**TREE, "new": b"new"}, parent=SAMPLE, timestamp=TIME + 1)
LARGE, LARGE_DATA = file_object(bytes(range(256)) * 1000)


def staging(*samples: Sample) -> StageObjects:
    return StageObjects(
        tuple(
            (name, Form.CANONICAL, data)
            for each in samples
            for name, data in each.objects.items()
        )
    )


def publishing(
    new: Sample,
    ref: RefPath = MAIN,
    *,
    branch: str | None = "main",
    remote: str = "o",
    metadata_only: bool = False,
    allow_older: bool = False,
) -> Publish:
    return Publish(
        remote=remote,
        commits=((new.checksum, branch),),
        refs=((ref, new.checksum),),
        metadata_only=metadata_only,
        allow_older=allow_older,
    )


def pieces(name: ObjectName, data: bytes, *, size: int = 100_000) -> list[Request]:
    starts = range(0, len(data), size)
    return [
        AddPiece(name, data[start : start + size], last=start + size >= len(data))
        for start in starts
    ]


def staged(repo: Repo) -> set[ObjectName]:
    return set(Repo.open(Path(repo.path, STAGE_PATH)).all_objects())


def configure(repo: Repo, **options: str) -> None:
    """Change options of the remote, as `ostree remote` would, in another process."""
    other = Repo.open(repo.path)
    for key, value in options.items():
        other.keys.set('remote "o"', key.replace("_", "-"), value)
    other.save_config()


def assert_unpublished(repo: Repo) -> None:
    assert list(repo.all_objects()) == []
    assert list(repo.refs.all()) == []


async def test_what_is_staged_is_published(repo: Repo, writer: Writer) -> None:
    assert await writer.call(staging(SAMPLE)) == Done()
    assert staged(repo) == set(SAMPLE.objects)
    assert_unpublished(repo)
    assert await writer.call(Sync()) == Done()
    assert await writer.call(publishing(SAMPLE)) == Done()
    assert staged(repo) == set()
    assert repo.refs.get(MAIN) == SAMPLE.checksum
    path = Path(repo.path)
    assert walk_objects(path).problems == ()
    assert dangling(path) == []
    assert not closure(path, SAMPLE.checksum).missing


async def test_updates_follow_one_another(repo: Repo, writer: Writer) -> None:
    for each in (SAMPLE, NEXT):
        await writer.call(staging(each))
        await writer.call(publishing(each))
    assert repo.refs.get(MAIN) == NEXT.checksum
    assert dangling(Path(repo.path)) == []


async def test_a_commit_that_is_here_needs_no_objects(
    repo: Repo, writer: Writer
) -> None:
    await writer.call(staging(SAMPLE))
    await writer.call(publishing(SAMPLE))
    commit = StageObjects(((SAMPLE.name, Form.CANONICAL, SAMPLE.data),))
    await writer.call(commit)
    assert staged(repo) == set()
    await writer.call(publishing(SAMPLE, head("main")))
    assert repo.refs.get(head("main")) == SAMPLE.checksum


async def test_bad_objects_are_rejected_and_good_ones_beside_them_kept(
    repo: Repo, writer: Writer
) -> None:
    good, torn, short = (file_object(bytes([n]) * 100) for n in range(3))
    batch = StageObjects(
        (
            (torn[0], Form.CANONICAL, torn[1] + b"!"),
            (good[0], Form.CANONICAL, good[1]),
            (short[0], Form.CANONICAL, b""),
            (LARGE, Form.FILEZ, b"not for this mode"),
        )
    )
    done = await writer.call(batch)
    assert [rejection.name for rejection in done.rejected] == [torn[0], short[0], LARGE]
    assert "expected" in done.rejected[0].reason
    assert staged(repo) == {good[0]}


@pytest.mark.parametrize(
    "kind",
    sorted(set(ObjectType) - {1, 2, 3, 4}),
)
async def test_other_kinds_of_objects_cannot_be_staged(
    repo: Repo, writer: Writer, kind: ObjectType
) -> None:
    name = ObjectName(SAMPLE.checksum, kind)
    with pytest.raises(FormatError, match="cannot be staged"):
        await writer.call(StageObjects(((name, Form.CANONICAL, b""),)))
    assert staged(repo) == set()


async def test_an_object_comes_in_pieces(repo: Repo, writer: Writer) -> None:
    await writer.call(BeginObject(LARGE, Form.CANONICAL, len(LARGE_DATA)))
    for piece in pieces(LARGE, LARGE_DATA):
        assert staged(repo) == set()
        assert await writer.call(piece) == Done()
    assert staged(repo) == {LARGE}


async def test_objects_come_in_pieces_side_by_side(repo: Repo, writer: Writer) -> None:
    objects = [file_object(bytes([n]) * 50_000) for n in range(5)]
    for name, data in objects:
        await writer.call(BeginObject(name, Form.CANONICAL, len(data)))
    rounds = zip(*(pieces(*each, size=9000) for each in objects), strict=True)
    for piece in itertools.chain.from_iterable(rounds):
        await writer.call(piece)
    assert staged(repo) == {name for name, _ in objects}


async def test_a_bad_piece_rejects_the_object_and_those_behind_it_too(
    repo: Repo, writer: Writer
) -> None:
    await writer.call(BeginObject(LARGE, Form.CANONICAL, len(LARGE_DATA)))
    bad = b"\xff" + LARGE_DATA[1:]
    answers = [await writer.call(piece) for piece in pieces(LARGE, bad)]
    assert [len(done.rejected) for done in answers] == [1, 1, 1]
    assert "file header of" in answers[0].rejected[0].reason
    assert answers[1].rejected[0].reason == "was not begun"
    await writer.call(BeginObject(LARGE, Form.CANONICAL, len(LARGE_DATA)))
    for piece in pieces(LARGE, LARGE_DATA):
        assert await writer.call(piece) == Done()
    assert staged(repo) == {LARGE}


async def test_an_object_begun_again_starts_anew(repo: Repo, writer: Writer) -> None:
    begin = BeginObject(LARGE, Form.CANONICAL, len(LARGE_DATA))
    first, *rest = pieces(LARGE, LARGE_DATA)
    for request in (begin, first, begin, first, *rest):
        assert await writer.call(request) == Done()
    assert staged(repo) == {LARGE}


async def test_an_aborted_object_is_forgotten(repo: Repo, writer: Writer) -> None:
    await writer.call(BeginObject(LARGE, Form.CANONICAL, len(LARGE_DATA)))
    first, second, _ = pieces(LARGE, LARGE_DATA)
    await writer.call(first)
    await writer.call(AbortObject(LARGE))
    await writer.call(AbortObject(LARGE))
    assert len((await writer.call(second)).rejected) == 1
    assert staged(repo) == set()


async def test_so_many_objects_in_pieces_and_no_more(writer: Writer) -> None:
    objects = [file_object(b"%d" % n) for n in range(MAX_UPLOADS + 1)]
    for name, data in objects[:-1]:
        await writer.call(BeginObject(name, Form.CANONICAL, len(data)))
    (name, data), (first, _) = objects[-1], objects[0]
    begin = BeginObject(name, Form.CANONICAL, len(data))
    with pytest.raises(LimitError, match="64 objects at once"):
        await writer.call(begin)
    await writer.call(AbortObject(first))
    await writer.call(begin)


async def test_an_object_larger_than_the_disk_is_not_begun(writer: Writer) -> None:
    with pytest.raises(NoSpaceError, match="must stay free"):
        await writer.call(BeginObject(LARGE, Form.CANONICAL, 1 << 60))


async def test_after_an_error_the_writer_goes_on(repo: Repo, writer: Writer) -> None:
    for _ in range(3):
        with pytest.raises(ObjectNotFoundError):
            await writer.call(publishing(SAMPLE))
    await writer.call(staging(SAMPLE))
    await writer.call(publishing(SAMPLE))
    assert repo.refs.get(MAIN) == SAMPLE.checksum


async def test_calls_from_many_tasks_do_not_mix(repo: Repo, writer: Writer) -> None:
    objects = [file_object(bytes([n]) * 30_000) for n in range(20)]

    async def stage(name: ObjectName, data: bytes, wrong: bytes) -> None:
        batch = StageObjects(((name, Form.CANONICAL, data + wrong),))
        done = await writer.call(batch)
        assert [r.name for r in done.rejected] == ([name] if wrong else [])

    async with trio.open_nursery() as nursery:
        for number, (name, data) in enumerate(objects):
            nursery.start_soon(stage, name, data, b"!" * (number % 2))
    assert staged(repo) == {name for name, _ in objects[::2]}


async def test_a_cancelled_call_does_no_harm_to_the_next(
    repo: Repo, writer: Writer
) -> None:
    objects = [file_object(bytes([n]) * 2_000_000) for n in range(6)]
    for number, (name, data) in enumerate(objects):
        with trio.move_on_after(0.0004 * number):
            await writer.call(StageObjects(((name, Form.CANONICAL, data),)))
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.call(Sync())
    assert await writer.call(staging(SAMPLE)) == Done()
    await writer.call(publishing(SAMPLE))
    assert repo.refs.get(MAIN) == SAMPLE.checksum
    assert walk_objects(Path(repo.path)).problems == ()


# -- what may be published ---------------------------------------------------------


async def test_a_commit_that_nobody_staged_is_not_published(
    repo: Repo, writer: Writer
) -> None:
    with pytest.raises(ObjectNotFoundError, match=SAMPLE.checksum):
        await writer.call(publishing(SAMPLE))
    assert_unpublished(repo)


async def test_a_commit_with_objects_missing_is_not_published(
    repo: Repo, writer: Writer
) -> None:
    await writer.call(
        StageObjects(staging(SAMPLE).objects[1:]),
    )
    with pytest.raises(ObjectNotFoundError, match="vanished") as caught:
        await writer.call(publishing(SAMPLE))
    assert "pull again" in caught.value.hint
    assert_unpublished(repo)


async def test_a_remote_that_is_not_configured_is_refused(writer: Writer) -> None:
    await writer.call(staging(SAMPLE))
    with pytest.raises(ConfigError, match="nowhere"):
        await writer.call(publishing(SAMPLE, remote="nowhere"))


@pytest.mark.parametrize(
    "detached, kind",
    [
        (None, UnsignedError),
        (signed(SAMPLE.data, BOB), SignatureError),
        (signed(NEXT.data, ALICE), SignatureError),
    ],
    ids=["unsigned", "by a stranger", "of another commit"],
)
async def test_a_commit_without_a_trusted_signature_is_not_published(
    repo: Repo, writer: Writer, detached: bytes | None, kind: type[Error]
) -> None:
    configure(repo, sign_verify="true", verification_ed25519_key=str(ALICE.public))
    await writer.call(staging(SAMPLE))
    if detached is not None:
        await writer.call(StageSignatures(SAMPLE.checksum, detached))
    with pytest.raises(kind):
        await writer.call(publishing(SAMPLE))
    assert_unpublished(repo)


async def test_a_signed_commit_is_published_with_its_signatures(
    repo: Repo, writer: Writer
) -> None:
    """The key was configured after the writer had opened the repository."""
    configure(repo, sign_verify="true", verification_ed25519_key=str(ALICE.public))
    await writer.call(staging(SAMPLE))
    detached = signed(SAMPLE.data, BOB, ALICE)
    await writer.call(StageSignatures(SAMPLE.checksum, detached))
    await writer.call(publishing(SAMPLE))
    assert repo.refs.get(MAIN) == SAMPLE.checksum
    assert repo.load_commitmeta(SAMPLE.checksum) == detached


@pytest.mark.parametrize(
    "data, kind",
    [(b"not a variant", FormatError), (bytes(100_000), LimitError)],
    ids=["broken", "too large"],
)
async def test_detached_metadata_that_is_none_is_refused(
    repo: Repo, writer: Writer, data: bytes, kind: type[Error]
) -> None:
    with pytest.raises(kind):
        await writer.call(StageSignatures(SAMPLE.checksum, data))
    assert staged(repo) == set()


async def test_a_commit_for_another_branch_is_not_published(
    repo: Repo, writer: Writer
) -> None:
    await writer.call(staging(SAMPLE))
    with pytest.raises(BindingError, match="main"):
        await writer.call(publishing(SAMPLE, remote_ref("o", "other"), branch="other"))
    assert_unpublished(repo)


@pytest.mark.parametrize(
    "ref, branch",
    [
        (remote_ref("o", "other"), "main"),
        (MAIN, None),
        (MAIN, "other"),
        (remote_ref("p", "main"), "main"),
        (mirror_ref("org.example.Os", "main"), "main"),
        (RefPath("mirrors/None/main"), "main"),
        (RefPath("mirrors/org.example.Os"), "main"),
        (RefPath("mirrors/../main"), "main"),
        (RefPath("mirrors/"), "main"),
        (RefPath("main"), "main"),
        (RefPath("heads/../../config"), "main"),
        (RefPath("../../outside"), "main"),
        (RefPath("remotes/o/../../../outside"), "main"),
        (RefPath("/etc/passwd"), "main"),
        (RefPath("heads/"), ""),
        (RefPath("heads/a b"), "a b"),
        (RefPath("heads/main\0"), "main\0"),
    ],
    ids=str,
)
async def test_a_ref_that_the_commit_was_not_verified_for_is_not_set(
    repo: Repo, writer: Writer, ref: RefPath, branch: str | None
) -> None:
    await writer.call(staging(SAMPLE))
    with pytest.raises((FormatError, BindingError)):
        await writer.call(publishing(SAMPLE, ref, branch=branch))
    assert_unpublished(repo)
    assert not (Path(repo.path).parent / "outside").exists()


async def test_a_ref_cannot_be_set_to_a_commit_that_was_not_named(
    repo: Repo, writer: Writer
) -> None:
    await writer.call(staging(SAMPLE))
    request = Publish(
        remote="o",
        commits=((SAMPLE.checksum, "main"),),
        refs=((MAIN, Checksum("0" * 64)),),
    )
    with pytest.raises(FormatError, match="not named"):
        await writer.call(request)
    assert_unpublished(repo)


async def test_a_mirrored_ref_of_the_remotes_collection_is_set(
    repo: Repo, writer: Writer
) -> None:
    bound = sample(TREE, refs=("main",), collection="org.example.Os")
    configure(repo, collection_id="org.example.Os")
    await writer.call(staging(bound))
    ref = mirror_ref("org.example.Os", "main")
    await writer.call(publishing(bound, ref))
    assert repo.refs.get(ref) == bound.checksum


async def test_an_older_commit_replaces_a_newer_one_only_when_wanted(
    repo: Repo, writer: Writer
) -> None:
    for each in (SAMPLE, OLD):
        await writer.call(staging(each))
    await writer.call(publishing(SAMPLE))
    with pytest.raises(RollbackError):
        await writer.call(publishing(OLD))
    assert repo.refs.get(MAIN) == SAMPLE.checksum
    await writer.call(publishing(OLD, allow_older=True))
    assert repo.refs.get(MAIN) == OLD.checksum


async def test_a_ref_whose_commit_is_lost_is_older_than_any(
    repo: Repo, writer: Writer
) -> None:
    repo.refs.set(MAIN, Checksum("0" * 64))
    await writer.call(staging(OLD))
    await writer.call(publishing(OLD))
    assert repo.refs.get(MAIN) == OLD.checksum


async def test_a_commit_from_the_future_is_not_published(
    repo: Repo, writer: Writer
) -> None:
    future = sample(TREE, timestamp=1 << 40)
    await writer.call(staging(future))
    with pytest.raises(FutureError):
        await writer.call(publishing(future))
    assert_unpublished(repo)


async def test_ancestors_are_published_with_their_descendant(
    repo: Repo, writer: Writer
) -> None:
    await writer.call(staging(SAMPLE, NEXT))
    request = Publish(
        remote="o",
        commits=((SAMPLE.checksum, None), (NEXT.checksum, "main")),
        refs=((MAIN, NEXT.checksum),),
    )
    await writer.call(request)
    assert dangling(Path(repo.path)) == []
    for each in (SAMPLE, NEXT):
        assert not closure(Path(repo.path), each.checksum).missing


async def test_only_the_metadata_of_a_commit_can_be_published(
    repo: Repo, writer: Writer
) -> None:
    commit = StageObjects(((SAMPLE.name, Form.CANONICAL, SAMPLE.data),))
    await writer.call(commit)
    await writer.call(publishing(SAMPLE, metadata_only=True))
    assert repo.is_partial(SAMPLE.checksum)
    assert list(repo.all_objects()) == [SAMPLE.name]


async def test_a_commit_that_was_deleted_here_can_come_back(
    repo: Repo, writer: Writer
) -> None:
    tombstone = ObjectName(SAMPLE.checksum, ObjectType.TOMBSTONE_COMMIT)
    os.makedirs(os.path.dirname(repo.object_path(tombstone)))
    os.mknod(repo.object_path(tombstone))
    await writer.call(staging(SAMPLE))
    await writer.call(publishing(SAMPLE))
    assert not repo.is_tombstoned(SAMPLE.checksum)


async def test_a_mirrors_commit_must_be_bound_to_the_collection_it_is_kept_under(
    repo: Repo, writer: Writer
) -> None:
    """The remote itself has no collection."""
    bound = sample(TREE, collection="org.example.Os")
    await writer.call(staging(bound))
    with pytest.raises(BindingError, match=r"org\.example\.Os"):
        await writer.call(publishing(bound, mirror_ref("org.example.Other", "main")))
    ref = mirror_ref("org.example.Os", "main")
    await writer.call(publishing(bound, ref))
    assert [found for found, _ in repo.refs.all()] == [ref]


async def test_a_mirror_keeps_the_summary_that_its_remote_vouches_for(
    repo: Repo, writer: Writer
) -> None:
    data = Summary().serialize()
    await writer.call(KeepSummary("o", data, b"signature"))
    for name, expected in (("summary", data), ("summary.sig", b"signature")):
        assert _read(repo, name) == expected
    with pytest.raises(FormatError):
        await writer.call(KeepSummary("o", b"no summary", None))
    configure(repo, gpg_verify_summary="true")
    with pytest.raises(Error):
        await writer.call(KeepSummary("o", data, None))
    assert _read(repo, "summary") == data


def _read(repo: Repo, name: str) -> bytes:
    return Path(repo.path, name).read_bytes()


# -- the service alone ---------------------------------------------------------------


def test_a_filez_is_taken_whole_by_an_archive(archive: Repo) -> None:
    name, _ = file_object(b"sample\n")
    packed = filez(b"sample\n")
    with WriterService(archive) as service:
        request = StageObjects(((name, Form.FILEZ, packed),))
        assert service.handle(request) == Done()
        place = Path(service.stage.repo.object_path(name))
        before = place.stat().st_ino
        assert service.handle(request) == Done()
        assert place.stat().st_ino == before
    assert place.read_bytes() == packed


def test_closing_drops_unfinished_objects_and_keeps_staged_ones(repo: Repo) -> None:
    scratch = Path(repo.path, STAGE_PATH, "tmp")
    with WriterService(repo) as service:
        service.handle(staging(SAMPLE))
        service.handle(BeginObject(LARGE, Form.CANONICAL, len(LARGE_DATA)))
        service.handle(pieces(LARGE, LARGE_DATA)[0])
        assert len(list(scratch.glob("*/*"))) > 0
    assert list(scratch.glob("*/*")) == []
    assert staged(repo) == set(SAMPLE.objects)


@pytest.mark.parametrize(
    "error, kind",
    [
        (PermissionError(13, "Permission denied"), ReadOnlyError),
        (OSError(5, "Input/output error"), RepositoryError),
        (OSError(28, "No space left on device"), NoSpaceError),
    ],
)
def test_what_the_disk_says_is_a_reply_and_no_end(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[Error]
) -> None:
    def fail(*_: object) -> None:
        raise error

    with WriterService(repo) as service:
        monkeypatch.setattr(service.stage, "sync", fail)
        reply = service.handle(Sync())
        monkeypatch.undo()
        assert isinstance(reply, Failed)
        assert type(reply.error()) is kind


def test_a_piece_that_the_disk_did_not_take_ends_the_object(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WriterService(repo) as service:
        service.handle(BeginObject(LARGE, Form.CANONICAL, len(LARGE_DATA)))
        first, *rest = pieces(LARGE, LARGE_DATA)
        assert service.handle(first) == Done()
        fail = refuse_space()
        with monkeypatch.context() as patch:
            patch.setattr(service.stage, "account", fail)
            assert isinstance(service.handle(rest[0]), Failed)
        reply = service.handle(rest[1])
        assert isinstance(reply, Done)
        assert reply.rejected[0].reason == "was not begun"
    assert staged(repo) == set()


def refuse_space() -> Callable[[int], None]:
    def account(_: int) -> None:
        raise NoSpaceError("full")

    return account


def test_the_clock_is_the_one_of_this_machine(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = RELEASED + 10 * 86400
    early = sample(TREE, timestamp=sent)
    monkeypatch.setattr(time, "time", lambda: sent - 3 * 86400.0)
    with WriterService(repo) as service:
        service.handle(staging(early))
        reply = service.handle(publishing(early))
    assert isinstance(reply, Failed)
    assert reply.kind == "FutureError"
