"""The TreeHub interface: paths, statuses, refs, namespaces, detached metadata."""

import contextlib
import json
import threading
from pathlib import Path

import pytest
import trio

from p2p.errors import ConfigError
from p2p.ostree.config import RepoMode
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirTree,
    ObjectName,
    ObjectType,
    checksum_of,
    parse_metadata,
    serialize_metadata,
)
from p2p.ostree.repo import Repo
from p2p.trust.sign import MAX_COMMITMETA_BYTES
from p2p.web.treehub import store as treehub_store
from p2p.web.treehub.api import serve_treehub
from p2p.web.treehub.completeness import Missing, find_missing
from tests.web.server.talk import Answer
from tests.web.treehub.hub import Objects, file_name, filez, make_commit, treehub

FIRST = make_commit({"a": b"alpha", "b": b"beta" * 1000})
SECOND = make_commit({"a": b"alpha", "c": b"gamma"}, parent=FIRST.commit, time=2)
OTHER = make_commit({"d": b"delta"}, parent=FIRST.commit, time=3)
PREFIXES = ["", "/api/v2", "/api/v3"]


def path_of(name: ObjectName) -> str:
    return f"/objects/{name.path(archive=True)}"


def assert_error(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json["code"]) == (status, code)
    assert set(answer.json) == {"code", "description", "cause", "errorId"}


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_pushs_requests_get_treehubs_answers(
    tmp_path: Path, prefix: str
) -> None:
    async with treehub(tmp_path) as hub:
        for name, data in FIRST.stored.items():
            target = prefix + path_of(name)
            assert (await hub.ask("HEAD", target)).status == 404
            assert_error(await hub.ask("GET", target), 404, "object_missing")
            assert (await hub.post(name, data, prefix=prefix)).status == 204
            again = await hub.post(name, data, prefix=prefix)
            assert_error(again, 409, "object_exists")
            head = await hub.ask("HEAD", target)
            assert (head.status, head.body) == (200, b"")
            assert head.headers["content-length"] == str(len(data))
            got = await hub.ask("GET", target)
            assert got.body == data
            assert got.headers["content-type"] == "application/octet-stream"
        ref = f"{prefix}/refs/heads/os/stable"
        assert_error(await hub.ask("GET", ref), 404, "missing_entity")
        for _ in "12":
            answer = await hub.set_ref("heads/os/stable", FIRST.commit, prefix=prefix)
            assert (answer.status, answer.body.decode()) == (200, FIRST.commit)
        assert (await hub.ask("GET", ref)).body.decode() == FIRST.commit


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_what_a_client_looks_for_first(tmp_path: Path, prefix: str) -> None:
    async with treehub(tmp_path) as hub:
        config = await hub.ask("GET", f"{prefix}/config")
        assert b"mode=archive-z2\n" in config.body
        assert (await hub.ask("POST", f"{prefix}/config", body=b"x")).status == 200
        for missing in (
            "/summary",
            "/summary.sig",
            "/deltas/ab/cdef/superblock",
            "/delta-indexes/ab/cdef.index",
            "/objects/ab",
            "/objects/ab/cd.commit",
            f"/objects/ab/{'c' * 62}.file",
            f"/objects/ab/{'C' * 62}.commit",
            f"/objects/ab/{'c' * 62}.",
            f"/objects/..%2f..%2fetc/{'c' * 62}.commit",
            "/refs/tags/x",
        ):
            answer = await hub.ask("GET", prefix + missing)
            assert_error(answer, 404, "missing_entity")
        assert (await hub.ask("GET", f"{prefix}/health")).json == {"status": "OK"}
        deleted = await hub.ask("DELETE", prefix + path_of(FIRST.commit_name))
        assert_error(deleted, 405, "method_not_allowed")


async def test_an_upload_without_content_is_refused(tmp_path: Path) -> None:
    async with treehub(tmp_path) as hub:
        name = FIRST.commit_name
        for answer in (await hub.post(name, b""), await hub.ask("POST", path_of(name))):
            assert_error(answer, 400, "invalid_entity")
        redirect = await hub.ask(
            "POST",
            f"{path_of(name)}?size=5",
            headers=[("x-ats-accept-redirect", "true")],
        )
        assert_error(redirect, 400, "out_of_band_storage_not_supported")


async def test_kinds_that_cannot_be_checked_are_not_kept(tmp_path: Path) -> None:
    async with treehub(tmp_path) as hub:
        for kind in (ObjectType.TOMBSTONE_COMMIT, ObjectType.FILE_XATTRS):
            answer = await hub.post(ObjectName(FIRST.commit, kind), b"x")
            assert_error(answer, 400, "invalid_entity")
        assert hub.files() == set()


# -- refs ----------------------------------------------------------------------


async def test_a_ref_moves_forward_and_only_by_force_elsewhere(tmp_path: Path) -> None:
    async with treehub(tmp_path) as hub:
        for objects in (FIRST, SECOND, OTHER):
            await hub.upload(objects)
        assert (await hub.set_ref("heads/main", FIRST.commit)).status == 200
        assert (await hub.set_ref("heads/main", SECOND.commit)).status == 200
        refused = await hub.set_ref("heads/main", OTHER.commit)
        assert_error(refused, 412, "not_fast_forward")
        assert SECOND.commit in refused.json["description"]
        back = await hub.set_ref("heads/main", FIRST.commit)
        assert_error(back, 412, "not_fast_forward")
        assert (await hub.ask("GET", "/refs/heads/main")).body.decode() == SECOND.commit
        forced = await hub.set_ref("heads/main", OTHER.commit, force=True)
        assert forced.status == 200
        assert (await hub.ask("GET", "/refs/heads/main")).body.decode() == OTHER.commit


async def test_several_commits_at_once_are_a_fast_forward_too(tmp_path: Path) -> None:
    third = make_commit({"e": b"epsilon"}, parent=SECOND.commit, time=4)
    async with treehub(tmp_path) as hub:
        for objects in (FIRST, SECOND, third):
            await hub.upload(objects)
        assert (await hub.set_ref("heads/main", FIRST.commit)).status == 200
        assert (await hub.set_ref("heads/main", third.commit)).status == 200


async def test_a_ref_cannot_name_what_is_not_here(tmp_path: Path) -> None:
    async with treehub(tmp_path) as hub:
        await hub.upload(FIRST)
        await hub.set_ref("heads/main", FIRST.commit)
        for ref in ("heads/main", "heads/new"):
            for force in (False, True):
                answer = await hub.set_ref(ref, SECOND.commit, force=force)
                assert_error(answer, 412, "commit_missing")


@pytest.mark.parametrize("lacking", [ObjectType.FILE, ObjectType.DIRMETA])
async def test_a_ref_cannot_name_an_incomplete_commit(
    tmp_path: Path, lacking: ObjectType
) -> None:
    gone = next(name for name in FIRST.stored if name.type is lacking)
    async with treehub(tmp_path) as hub:
        for name, data in FIRST.stored.items():
            if name != gone:
                await hub.post(name, data)
        for force in (False, True):
            answer = await hub.set_ref("heads/main", FIRST.commit, force=force)
            assert_error(answer, 412, "commit_incomplete")
            assert str(gone) in answer.json["description"]
        assert (await hub.ask("GET", "/refs/heads/main")).status == 404
        await hub.post(gone, FIRST.stored[gone])
        assert (await hub.set_ref("heads/main", FIRST.commit)).status == 200


async def test_a_commit_that_came_too_early_counts_once_it_is_complete(
    tmp_path: Path,
) -> None:
    tree = next(name for name in FIRST.stored if name.type is ObjectType.DIRTREE)
    target = path_of(FIRST.commit_name)
    async with treehub(tmp_path) as hub:
        await hub.post(FIRST.commit_name, FIRST.stored[FIRST.commit_name])
        assert hub.repo.is_partial(FIRST.commit)
        assert (await hub.ask("GET", target)).status == 200
        # A tool that pushes would take 200 for a finished push.
        assert (await hub.ask("HEAD", target)).status == 404
        for name, data in FIRST.stored.items():
            if name != tree:
                await hub.post(name, data)
        assert (await hub.ask("HEAD", target)).status == 404
        await hub.post(tree, FIRST.stored[tree])
        again = await hub.post(FIRST.commit_name, FIRST.stored[FIRST.commit_name])
        assert again.status == 409
        assert not hub.repo.is_partial(FIRST.commit)
        assert (await hub.ask("HEAD", target)).status == 200


async def test_a_ref_that_is_set_makes_its_commit_complete(tmp_path: Path) -> None:
    async with treehub(tmp_path) as hub:
        await hub.post(FIRST.commit_name, FIRST.stored[FIRST.commit_name])
        await hub.upload(FIRST)
        assert (await hub.set_ref("heads/main", FIRST.commit)).status == 200
        assert not hub.repo.is_partial(FIRST.commit)


@pytest.mark.parametrize(
    "ref,body,status",
    [
        ("heads/main", b"", 400),
        ("heads/main", b"x" * 64, 400),
        ("heads/main", b"a" * 63, 400),
        ("heads/main", b"a" * 300, 413),
        ("heads/a%20b", b"a" * 64, 400),
        ("heads/../../x", b"a" * 64, 400),
        ("heads/..%2fx", b"a" * 64, 400),
        ("mirrors/org.example/x", b"a" * 64, 400),
        ("nowhere/x", b"a" * 64, 404),
    ],
)
async def test_impossible_refs_and_commits_are_refused(
    tmp_path: Path, ref: str, body: bytes, status: int
) -> None:
    async with treehub(tmp_path) as hub:
        answer = await hub.ask("POST", f"/refs/{ref}", body=body)
        assert answer.status == status
        assert hub.files() == set()


async def test_a_commit_may_be_sent_with_a_newline_and_any_type(tmp_path: Path) -> None:
    async with treehub(tmp_path) as hub:
        await hub.upload(FIRST)
        answer = await hub.ask(
            "POST",
            "/refs/heads/main",
            headers=[("Content-Type", "application/x-www-form-urlencoded")],
            body=FIRST.commit.encode() + b"\n",
        )
        assert answer.status == 200


async def test_a_ref_below_another_is_refused(tmp_path: Path) -> None:
    async with treehub(tmp_path) as hub:
        await hub.upload(FIRST)
        assert (await hub.set_ref("heads/a", FIRST.commit)).status == 200
        answer = await hub.set_ref("heads/a/b", FIRST.commit)
        assert answer.status == 500
        assert "in its way" in answer.json["description"]


async def test_of_two_pushes_of_different_children_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)

    def find(repo: Repo, commit: Commit) -> Missing:
        # Both have looked at where the ref is, unless one waits for the other.
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.3)
        return find_missing(repo, commit)

    async with treehub(tmp_path) as hub:
        for objects in (FIRST, SECOND, OTHER):
            await hub.upload(objects)
        await hub.set_ref("heads/main", FIRST.commit)
        monkeypatch.setattr(treehub_store, "find_missing", find)
        statuses: dict[Checksum, int] = {}

        async def push(commit: Checksum) -> None:
            statuses[commit] = (await hub.set_ref("heads/main", commit)).status

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push, SECOND.commit)
            nursery.start_soon(push, OTHER.commit)
        assert sorted(statuses.values()) == [200, 412]
        winner = (await hub.ask("GET", "/refs/heads/main")).body.decode()
        assert statuses[Checksum(winner)] == 200


async def test_a_directory_bomb_cannot_become_a_ref(tmp_path: Path) -> None:
    base = make_commit({})
    tree = next(n for n in base.stored if n.type is ObjectType.DIRTREE)
    meta = next(n for n in base.stored if n.type is ObjectType.DIRMETA)
    checksum = tree.checksum
    async with treehub(tmp_path) as hub:
        await hub.upload(base)
        for _ in range(30):
            data = _two_subdirectories(checksum, meta.checksum)
            checksum = checksum_of(data)
            await hub.post(ObjectName(checksum, ObjectType.DIRTREE), data)
        data = Commit(
            root_dirtree=checksum, root_dirmeta=meta.checksum, timestamp=1
        ).serialize()
        commit = ObjectName(checksum_of(data), ObjectType.COMMIT)
        answer = await hub.post(commit, data)
        assert_error(answer, 400, "invalid_entity")
        assert "unfolds" in answer.json["description"]
        answer = await hub.set_ref("heads/main", commit.checksum)
        assert_error(answer, 412, "commit_missing")


def _two_subdirectories(tree: Checksum, meta: Checksum) -> bytes:
    return DirTree(dirs=(("a", tree, meta), ("b", tree, meta))).serialize()


# -- detached metadata ---------------------------------------------------------


def signatures(*values: bytes, key: str = "ostree.sign.ed25519") -> bytes:
    return serialize_metadata(((key, Variant("aay", values)),))


def meta_name(objects: Objects) -> ObjectName:
    return ObjectName(objects.commit, ObjectType.COMMITMETA)


async def test_signatures_made_after_a_push_are_added(tmp_path: Path) -> None:
    name = meta_name(FIRST)
    async with treehub(tmp_path) as hub:
        assert (await hub.post(name, signatures(b"one"))).status == 204
        assert (await hub.post(name, signatures(b"one"))).status == 409
        assert (await hub.post(name, signatures(b"two"))).status == 204
        assert (await hub.post(name, signatures(b"one"))).status == 409
        gpg = signatures(b"gpg", key="ostree.gpgsigs")
        assert (await hub.post(name, gpg)).status == 204
        got = parse_metadata((await hub.ask("GET", path_of(name))).body)
        assert got == (
            ("ostree.sign.ed25519", Variant("aay", (b"one", b"two"))),
            ("ostree.gpgsigs", Variant("aay", (b"gpg",))),
        )


@pytest.mark.parametrize(
    "data,status",
    [
        (b"x" * 20, 400),
        (signatures(b"x" * MAX_COMMITMETA_BYTES), 413),
        (signatures(*(b"%d" % n for n in range(65))), 204),
    ],
)
async def test_detached_metadata_is_checked_as_far_as_can_be(
    tmp_path: Path, data: bytes, status: int
) -> None:
    async with treehub(tmp_path) as hub:
        assert (await hub.post(meta_name(FIRST), data)).status == status
        assert bool(hub.files()) == (status == 204)


async def test_detached_metadata_cannot_grow_for_ever(tmp_path: Path) -> None:
    name = meta_name(FIRST)
    async with treehub(tmp_path) as hub:
        some = signatures(*(b"%d" % n for n in range(60)))
        assert (await hub.post(name, some)).status == 204
        more = signatures(*(b"%d" % n for n in range(60, 120)))
        assert_error(await hub.post(name, more), 400, "invalid_entity")
        kept = parse_metadata((await hub.ask("GET", path_of(name))).body)
        assert len(kept[0][1].value) == 60


# -- namespaces and manifests --------------------------------------------------


async def test_namespaces_do_not_see_each_other(tmp_path: Path) -> None:
    name = file_name(b"content")
    here = [("x-ats-namespace", "team-a")]
    async with treehub(tmp_path) as hub:
        assert (await hub.ask("GET", path_of(name), headers=here)).status == 404
        assert not (tmp_path / "namespaces").exists()
        answer = await hub.post(name, filez(b"content"), x_ats_namespace="team-a")
        assert answer.status == 204
        assert (await hub.ask("GET", path_of(name), headers=here)).status == 200
        assert (await hub.ask("GET", path_of(name))).status == 404
        default = [("x-ats-namespace", "default")]
        assert (await hub.ask("GET", path_of(name), headers=default)).status == 404
    assert Repo.open(tmp_path / "namespaces/team-a").has(name)
    async with treehub(tmp_path) as hub:
        assert (await hub.ask("GET", path_of(name), headers=here)).status == 200


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 200, ".hidden"])
async def test_a_namespace_is_a_plain_name(tmp_path: Path, name: str) -> None:
    lines = [("x-ats-namespace", name)]
    async with treehub(tmp_path) as hub:
        for method in ("GET", "POST"):
            answer = await hub.ask(
                method, path_of(FIRST.commit_name), headers=lines, body=b"x"
            )
            assert_error(answer, 400, "invalid_entity")
        assert not (tmp_path / "namespaces").exists()


async def test_there_is_an_end_to_new_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(treehub_store, "MAX_NAMESPACES", 2)
    async with treehub(tmp_path) as hub:
        data = filez(b"x")
        answers = [
            await hub.post(file_name(b"x"), data, x_ats_namespace=f"n{number}")
            for number in range(3)
        ]
        assert [answer.status for answer in answers] == [204, 204, 500]


async def test_a_manifest_is_kept_with_its_commit(tmp_path: Path) -> None:
    manifest = json.dumps({"manifest": {"default": {"@revision": "main"}}}).encode()
    target = f"/api/v3/manifests/{FIRST.commit}"
    async with treehub(tmp_path) as hub:
        early = await hub.ask("PUT", target, body=manifest)
        assert_error(early, 412, "commit_missing")
        await hub.upload(FIRST)
        assert (await hub.ask("PUT", target, body=manifest)).status == 200
        for wrong in (b"[]", b"{", b"\xff", b"[" * 100_000):
            answer = await hub.ask("PUT", target, body=wrong)
            assert_error(answer, 400, "invalid_entity")
        answer = await hub.ask("PUT", "/manifests/xyz", body=manifest)
        assert_error(answer, 400, "invalid_entity")
    kept = tmp_path / f"extensions/p2p/manifests/{FIRST.commit}.json"
    assert kept.read_bytes() == manifest


# -- the server itself -----------------------------------------------------------


async def test_without_credentials_only_its_health_is_told(tmp_path: Path) -> None:
    async with treehub(tmp_path, credentials=("Bearer t0ken",)) as hub:
        assert_error(await hub.ask("GET", "/config"), 401, "unauthorized")
        assert (await hub.ask("GET", "/health")).status == 200
        token = [("Authorization", "Bearer t0ken")]
        assert (await hub.ask("GET", "/config", headers=token)).status == 200


async def test_shutdown_finishes_what_runs(tmp_path: Path) -> None:
    async with treehub(tmp_path) as hub, hub.talk() as talk:
        assert (await talk.ask("GET", "/config")).status == 200
        hub.shutdown.set()
        assert await talk.is_closed()


@pytest.mark.parametrize(
    "setting", ["auto-update-summary=true", "parent=/x", "unheard-of=1"]
)
async def test_a_store_with_settings_that_are_not_kept_is_refused(
    tmp_path: Path, setting: str
) -> None:
    Repo.init(tmp_path, RepoMode.ARCHIVE)
    config = tmp_path / "config"
    config.write_text(config.read_text() + f"\n{setting}\n")
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        await serve_treehub(str(tmp_path), "127.0.0.1:0")


async def test_a_store_of_another_mode_is_refused(tmp_path: Path) -> None:
    Repo.init(tmp_path, RepoMode.BARE_USER)
    with pytest.raises(ConfigError, match="is bare-user"):
        await serve_treehub(str(tmp_path), "127.0.0.1:0")


async def test_a_damaged_store_says_which_file(tmp_path: Path) -> None:
    tree = next(n for n in FIRST.stored if n.type is ObjectType.DIRTREE)
    async with treehub(tmp_path) as hub:
        await hub.upload(FIRST)
        await hub.post(meta_name(FIRST), signatures(b"one"))
        damaged = spoil(hub.repo.object_path(tree))
        answer = await hub.set_ref("heads/main", FIRST.commit)
        assert_error(answer, 500, "internal_server_error")
        assert damaged in answer.json["description"]
        damaged = spoil(hub.repo.object_path(meta_name(FIRST)))
        answer = await hub.post(meta_name(FIRST), signatures(b"two"))
        assert_error(answer, 500, "internal_server_error")
        assert damaged in answer.json["description"]
        damaged = spoil(str(tmp_path / "refs/heads/main"))
        answer = await hub.ask("GET", "/refs/heads/main")
        assert_error(answer, 500, "internal_server_error")
        assert damaged in answer.json["description"]


def spoil(path: str) -> str:
    Path(path).write_bytes(b"damaged")
    return path
