"""Objects on their way into a store: verified, durable, nothing left of bad ones."""

import errno
import os
import random
import subprocess
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from p2p.errors import RepositoryError
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import (
    Checksum,
    FileHeader,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.repo import Repo
from p2p.web.treehub import ingest
from p2p.web.treehub.ingest import Ingest
from tests.mounts import MakeMount
from tests.web.server.talk import Answer
from tests.web.treehub.hub import DIRMETA, file_name, filez, make_commit, treehub

SMALL = b"some content\n" * 50
LARGE = random.Random(7).randbytes(700_000)
KINDS = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])


def lie(size: int, content: bytes) -> bytes:
    """A .filez whose header claims another size."""
    honest = filez(content)
    head = len(honest) - len(deflate(content))
    return FileHeader(0, 0, 0o100644).serialize_filez(size) + honest[head:]


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


async def put(store: Path, name: ObjectName, data: bytes) -> Answer:
    """Upload one object to a fresh server; a refused one leaves nothing."""
    async with treehub(store) as hub:
        answer = await hub.post(name, data)
        if answer.status != 204:
            assert hub.files() == set()
        return answer


def kept_file(store: Path, name: ObjectName) -> tuple[bytes, int]:
    """An object's file in a store: content and mode."""
    path = Path(Repo.open(store).object_path(name))
    return path.read_bytes(), path.stat().st_mode & 0o7777


def assert_refused(answer: Answer, *words: str, status: int = 400) -> None:
    assert answer.status == status
    for word in words:
        assert word in answer.json["description"]


@KINDS
async def test_a_filez_is_kept_byte_for_byte(tmp_path: Path, content: bytes) -> None:
    name = file_name(content)
    for level, folder in ((1, "one"), (9, "nine")):
        data = filez(content, level=level)
        assert (await put(tmp_path / folder, name, data)).status == 204
        assert kept_file(tmp_path / folder, name) == (data, 0o644)


@KINDS
async def test_other_content_than_the_name_says_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    answer = await put(tmp_path, file_name(content), filez(content[:-1] + b"?"))
    assert_refused(answer, file_name(content).checksum)


@KINDS
async def test_a_size_that_is_a_lie_is_refused(tmp_path: Path, content: bytes) -> None:
    for size in (0, len(content) - 1, len(content) + 1, 1 << 40, 1 << 63):
        answer = await put(tmp_path, file_name(content), lie(size, content))
        assert_refused(answer, "file object")


@KINDS
async def test_bytes_behind_the_content_are_refused(
    tmp_path: Path, content: bytes
) -> None:
    answer = await put(tmp_path, file_name(content), filez(content) + b"x")
    assert_refused(answer, "after the end")


@KINDS
async def test_a_truncated_object_is_refused(tmp_path: Path, content: bytes) -> None:
    data = filez(content)
    for length in (1, 7, 20, len(data) // 2, len(data) - 1):
        answer = await put(tmp_path, file_name(content), data[:length])
        assert_refused(answer, "ends within")


async def test_a_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    header = FileHeader(0, 0, 0o100644).serialize_filez(10)
    bomb = header + deflate(bytes(200 << 20))
    assert len(bomb) > ingest.SMALL_BYTES
    assert_refused(await put(tmp_path, file_name(b"x" * 10), bomb), "10 bytes")


async def test_a_file_beyond_the_limit_is_refused_by_its_header(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path, RepoMode.ARCHIVE)
    async with running(Ingest(repo, max_content_bytes=100)) as door:
        with pytest.raises(Exception, match="more than 100"):
            await door.put(file_name(SMALL), pieces(filez(SMALL)), None)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\0\0\x01\0\0\0\x01", b"\xff" * 8, b"\xff" * 300_000]
)
async def test_nonsense_is_refused(tmp_path: Path, data: bytes) -> None:
    assert (await put(tmp_path, file_name(SMALL), data)).status == 400


@pytest.mark.parametrize(
    "kind", [ObjectType.COMMIT, ObjectType.DIRTREE, ObjectType.DIRMETA]
)
async def test_metadata_must_have_its_checksum_and_its_form(
    tmp_path: Path, kind: ObjectType
) -> None:
    good = make_commit({"a": b"a"}).stored
    name, data = next((n, d) for n, d in good.items() if n.type is kind)
    assert_refused(await put(tmp_path, name, data + b"\0"), name.checksum)
    nonsense = b"no variant of that type"
    wrong = ObjectName(checksum_of(nonsense), kind)
    assert (await put(tmp_path, wrong, nonsense)).status == 400
    assert (await put(tmp_path, name, data)).status == 204


async def test_metadata_is_bounded(tmp_path: Path) -> None:
    data = bytes((10 << 20) + 1)
    name = ObjectName(checksum_of(data), ObjectType.DIRTREE)
    assert_refused(await put(tmp_path, name, data), "more than")


# -- the ways an object can come -------------------------------------------------


def form(
    content: bytes, *, field: bytes = b"file", boundary: bytes = b"b0undary"
) -> bytes:
    return b"\r\n".join(
        [
            b"--" + boundary,
            b'Content-Disposition: form-data; name="other"',
            b"",
            b"--b0undar not a boundary",
            b"--" + boundary,
            b'Content-Disposition: form-data; name="'
            + field
            + b'"; filename="x.filez"',
            b"Content-Type: application/octet-stream",
            b"",
            content,
            b"--" + boundary + b"--",
            b"",
        ]
    )


MULTIPART = "multipart/form-data; boundary=b0undary"


@KINDS
async def test_a_form_with_the_field_file_is_taken(
    tmp_path: Path, content: bytes
) -> None:
    name, data = file_name(content), filez(content)
    async with treehub(tmp_path) as hub:
        answer = await hub.post(name, form(data), content_type=MULTIPART)
        assert (answer.status, answer.body) == (200, b"")
        again = await hub.post(name, form(data), content_type=MULTIPART)
        assert again.status == 409
        assert kept_file(tmp_path, name)[0] == data


async def test_a_form_may_carry_detached_metadata(tmp_path: Path) -> None:
    name = ObjectName(Checksum("a" * 64), ObjectType.COMMITMETA)
    async with treehub(tmp_path) as hub:
        answer = await hub.post(name, form(b""), content_type=MULTIPART)
        assert answer.status == 200


@pytest.mark.parametrize(
    "body,content_type,complaint",
    [
        (form(SMALL, field=b"data"), MULTIPART, "no such field"),
        (form(SMALL)[:-30], MULTIPART, "ends too early"),
        (b"no parts", MULTIPART, "ends too early"),
        (b"--b0undary\r\nX: " + b"x" * 20_000, MULTIPART, "too long"),
        (b"--b0undary\r\n\r\n\r\n--b0undary--", MULTIPART, "no such field"),
        (form(SMALL), "multipart/form-data", "no boundary"),
        (form(SMALL), f"multipart/form-data; boundary={'x' * 99}", "no boundary"),
    ],
)
async def test_a_malformed_form_is_refused(
    tmp_path: Path, body: bytes, content_type: str, complaint: str
) -> None:
    async with treehub(tmp_path) as hub:
        answer = await hub.post(file_name(SMALL), body, content_type=content_type)
        assert_refused(answer, complaint)
        assert hub.files() == set()


@KINDS
async def test_an_object_may_come_in_chunks(tmp_path: Path, content: bytes) -> None:
    name, data = file_name(content), filez(content)
    head = f"POST /objects/{name.path(archive=True)} HTTP/1.1\r\nHost: a\r\n"
    async with treehub(tmp_path) as hub, await hub.connect() as stream:
        await stream.send_all(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(data), 100_000):
            chunk = data[at : at + 100_000]
            await stream.send_all(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await stream.send_all(b"0\r\n\r\n")
        assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 204 ")


@KINDS
async def test_a_client_that_leaves_leaves_nothing(
    tmp_path: Path, content: bytes
) -> None:
    name, data = file_name(content), filez(content)
    head = (
        f"POST /objects/{name.path(archive=True)} HTTP/1.1\r\nHost: a\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    async with treehub(tmp_path) as hub:
        async with await hub.connect() as stream:
            await stream.send_all(head.encode() + data[: len(data) // 2])
            await stream.send_eof()
            assert b"400" in (await stream.receive_some(100)).splitlines()[0]
        assert hub.files() == set()
        assert (await hub.post(name, data)).status == 204


# -- many at once ----------------------------------------------------------------


async def test_thirty_uploads_at_once_are_all_there(tmp_path: Path) -> None:
    contents = [
        os.urandom(random.Random(n).choice((9, 5000, 200_000))) for n in range(30)
    ]
    async with treehub(tmp_path) as hub, trio.open_nursery() as nursery:

        async def upload(content: bytes) -> None:
            answer = await hub.post(file_name(content), filez(content))
            assert answer.status == 204
            assert hub.repo.has(file_name(content))

        for content in contents:
            nursery.start_soon(upload, content)
    assert {str(name) for name in Repo.open(tmp_path).all_objects()} == {
        str(file_name(content)) for content in contents
    }


@KINDS
async def test_of_several_uploads_of_one_object_one_is_new(
    tmp_path: Path, content: bytes
) -> None:
    statuses = []
    async with treehub(tmp_path) as hub:

        async def upload() -> None:
            answer = await hub.post(file_name(content), filez(content))
            statuses.append(answer.status)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(upload)
        assert sorted(statuses) == [204] + [409] * 7
        assert len(hub.files()) == 1


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


class running:  # noqa: N801  used like a function
    """`async with running(door)`: a door whose `run` is running."""

    def __init__(self, door: Ingest) -> None:
        self._door = door
        self._nursery = trio.open_nursery()

    async def __aenter__(self) -> Ingest:
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._door.run)
        self._scope = nursery.cancel_scope
        return self._door

    async def __aexit__(self, *exc: object) -> None:
        self._scope.cancel()
        await self._nursery.__aexit__(None, None, None)
        self._door.close()


async def test_an_object_is_not_there_before_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks while an upload is being synced waits for the outcome."""
    name, other = file_name(SMALL), ObjectName(checksum_of(DIRMETA), ObjectType.DIRMETA)
    in_sync, go_on = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def slow_sync(fd: int) -> None:
        trio.from_thread.run_sync(in_sync.set, trio_token=token)
        trio.from_thread.run(go_on.wait, trio_token=token)

    repo = Repo.init(tmp_path, RepoMode.ARCHIVE)
    monkeypatch.setattr("os.fsync", slow_sync)
    answers: list[bool] = []
    async with running(Ingest(repo)) as door:
        async with trio.open_nursery() as nursery:

            async def has() -> None:
                answers.append(await door.has(name))

            async def put() -> None:
                answers.append(await door.put(name, pieces(filez(SMALL)), 1000))

            nursery.start_soon(put)
            await in_sync.wait()
            nursery.start_soon(has)
            nursery.start_soon(put)
            assert not await door.has(other)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert answers == []
            go_on.set()
        assert sorted(answers) == [False, True, True]


@pytest.mark.parametrize("failing", [1, 2], ids=["content", "place"])
async def test_a_sync_that_fails_fails_its_uploads_and_withdraws_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    real, calls = os.fsync, 0

    def sync(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    repo = Repo.init(tmp_path, RepoMode.ARCHIVE)
    monkeypatch.setattr("os.fsync", sync)
    async with running(Ingest(repo)) as door:
        with pytest.raises(RepositoryError, match="Input/output error"):
            await door.put(file_name(SMALL), pieces(filez(SMALL)), 1000)
        assert not await door.has(file_name(SMALL))
        assert list((tmp_path / "tmp").rglob("[0-9]*")) == []
        assert await door.put(file_name(SMALL), pieces(filez(SMALL)), 1000)


async def test_a_commit_becomes_visible_after_what_came_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = make_commit({str(n): b"%d" % n for n in range(20)})
    order: list[str] = []
    real = os.rename

    def rename(source: str, place: str) -> None:
        real(source, place)
        order.append(place)

    def sync(_fd: int) -> None:
        order.append("sync")

    repo = Repo.init(tmp_path, RepoMode.ARCHIVE)
    monkeypatch.setattr("os.rename", rename)
    monkeypatch.setattr(ingest, "syncfs", sync)
    door = Ingest(repo)
    async with trio.open_nursery() as nursery:
        for name, data in reversed(good.stored.items()):
            nursery.start_soon(door.put, name, pieces(data), len(data))
        await trio.testing.wait_all_tasks_blocked()
        async with running(door):
            await door.has(good.commit_name)
    commit = next(at for at, place in enumerate(order) if place.endswith(".commit"))
    before = order[:commit]
    assert len([place for place in before if place != "sync"]) == len(good.stored) - 1
    assert before[-1] == "sync"
    assert not repo.is_partial(good.commit)


async def test_without_fsync_in_the_configuration_nothing_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repo.init(tmp_path, RepoMode.ARCHIVE)
    repo.keys.set("core", "fsync", "false")
    repo.save_config()
    monkeypatch.setattr("os.fsync", lambda _: pytest.fail("synced"))
    async with running(Ingest(repo)) as door:
        assert await door.put(file_name(SMALL), pieces(filez(SMALL)), 1000)


# -- what the disk may do ----------------------------------------------------------


async def test_too_little_free_space_is_507(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path, RepoMode.ARCHIVE)
    repo.keys.set("core", "min-free-space-size", "900000TB")
    repo.save_config()
    for content in (SMALL, LARGE):
        answer = await put(tmp_path, file_name(content), filez(content))
        assert_refused(answer, "must stay free", status=507)


@pytest.mark.root
@KINDS
async def test_a_full_disk_is_507_and_leaves_nothing(
    tmpfs: MakeMount, content: bytes
) -> None:
    store = tmpfs(1 << 20)
    async with treehub(store) as hub:
        repo = hub.repo
        repo.keys.set("core", "min-free-space-percent", "0")
        repo.save_config()
    async with treehub(store) as hub:
        space = os.statvfs(store)
        filler = store / "filler"
        filler.write_bytes(bytes((space.f_bavail - 1) * space.f_frsize))
        big = filez(content, level=0) if content is LARGE else filez(os.urandom(9000))
        name = file_name(content) if content is LARGE else file_name(b"")
        answer = await hub.post(name, big)
        assert_refused(answer, str(store), status=507)
        assert hub.files() == set()
        filler.unlink()
        assert (await hub.post(file_name(content), filez(content))).status == 204


@pytest.mark.root
async def test_a_store_that_can_only_be_read_is_served_and_refuses_uploads(
    tmpfs: MakeMount,
) -> None:
    store = tmpfs(1 << 20)
    good = make_commit({"a": b"a"})
    async with treehub(store) as hub:
        await hub.upload(good)
    remount(store, "ro")
    async with treehub(store) as hub:
        path = f"/objects/{good.commit_name.path()}"
        assert (await hub.ask("GET", path)).status == 200
        for content in (SMALL, LARGE):
            answer = await hub.post(file_name(content), filez(content))
            assert_refused(answer, "Read-only file system", status=500)
        answer = await hub.set_ref("heads/main", good.commit)
        assert_refused(answer, "Read-only file system", status=500)
        remount(store, "rw")
        assert (await hub.post(file_name(SMALL), filez(SMALL))).status == 204


def remount(path: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", path], check=True)


async def test_a_room_that_ostree_cleared_is_made_again(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path, RepoMode.ARCHIVE)
    async with running(Ingest(repo)) as door:
        (room,) = (tmp_path / "tmp").glob("p2p-upload-*")
        (room / ".lock").unlink()
        room.rmdir()
        assert await door.put(file_name(SMALL), pieces(filez(SMALL)), 1000)
        assert await door.put(file_name(LARGE), pieces(filez(LARGE)), None)
    assert list((tmp_path / "tmp").glob("p2p-upload-*")) == []


async def test_what_a_dead_server_left_is_cleared_and_a_living_ones_kept(
    tmp_path: Path,
) -> None:
    repo = Repo.init(tmp_path, RepoMode.ARCHIVE)
    dead = tmp_path / "tmp/p2p-upload-dead"
    dead.mkdir()
    (dead / "5").write_bytes(b"half")
    (dead / ".lock").touch()
    first = Ingest(repo)
    assert not dead.exists()
    second = Ingest(repo)
    assert len(list((tmp_path / "tmp").glob("p2p-upload-*"))) == 2
    first.close()
    second.close()


async def test_many_small_uploads_in_memory_make_the_next_go_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_MAX_BUFFERED", 0)
    repo = Repo.init(tmp_path, RepoMode.ARCHIVE)
    async with running(Ingest(repo)) as door:
        assert await door.put(file_name(SMALL), pieces(filez(SMALL)), 1000)
