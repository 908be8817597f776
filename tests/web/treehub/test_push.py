"""Pushes to our own server, and to TreeHub as it is."""

import os
from pathlib import Path

import pytest

from p2p.errors import (
    DamagedObjectError,
    ObjectNotFoundError,
    OriginError,
    RefNotFoundError,
)
from p2p.ostree.config import RepoMode
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    ObjectName,
    ObjectType,
    parse_metadata,
    serialize_metadata,
)
from p2p.ostree.refs import head
from p2p.ostree.repo import Repo
from p2p.web.server.exchange import Request, Response, text
from p2p.web.treehub.client import (
    RefRefusedError,
)
from p2p.web.treehub.push import NotFastForwardError
from tests.web.treehub.hub import Objects, file_name, make_repo, treehub
from tests.web.treehub.pushing import FIRST, NOISE, OTHER, SECOND, THIRD, go, upstream


def stored_in(repo: Repo) -> set[str]:
    return {str(name) for name in repo.all_objects()}


@pytest.mark.parametrize(
    "mode", [RepoMode.ARCHIVE, RepoMode.BARE_USER, RepoMode.BARE_USER_ONLY]
)
async def test_a_commit_arrives_whole_from_any_mode(
    tmp_path: Path, mode: RepoMode
) -> None:
    local = make_repo(tmp_path / "local", FIRST, mode=mode)
    async with treehub(tmp_path / "store") as hub:
        result = await go(local, hub.url)
        assert (result.commit, result.ref) == (FIRST.commit, "main")
        assert result.sent_objects == len(FIRST.stored)
        assert (result.previous, result.commits, result.signatures) == (None, 1, "none")
        assert hub.repo.refs.get(head("main")) == FIRST.commit
        assert stored_in(hub.repo) == {str(name) for name in FIRST.stored}
        with hub.repo.open_content(file_name(NOISE).checksum) as reader:
            assert b"".join(reader.content()) == NOISE
        again = await go(local, hub.url)
        assert (again.sent_objects, again.previous) == (0, FIRST.commit)


async def test_a_filez_of_an_archive_is_sent_as_it_is(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        await go(local, url)
        assert server.objects == {
            name.path(archive=True): data for name, data in FIRST.stored.items()
        }


async def test_children_come_before_parents_and_the_commit_last(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        await go(local, url)
        sent = [path.rpartition(".")[2] for path in server.asked("POST")]
        kinds = [kind for kind in sent if kind not in ("filez", "dirmeta")]
        assert kinds[:2] == ["dirtree", "commit"]
        assert kinds[2] == server.asked("POST")[-1].rpartition(".")[2]
        assert server.asked("POST")[-1] == "refs/heads/main"
        assert sent.index("dirtree") == len(FIRST.stored) - 2


async def test_what_the_origin_lacks_is_not_asked_for_again_and_again(
    tmp_path: Path,
) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        await go(local, url)
        # The first few dozen, the large one, the commit; then they are just sent.
        assert len(server.asked("HEAD")) < 75


async def test_only_what_changed_since_the_origins_commit_is_asked_about(
    tmp_path: Path,
) -> None:
    local = make_repo(tmp_path / "local", FIRST)
    async with treehub(tmp_path / "store", access_log=None) as hub:
        await go(local, hub.url)
    async with upstream() as (server, url):
        server.objects = {
            name.path(archive=True): data for name, data in FIRST.stored.items()
        }
        server.refs["heads/main"] = FIRST.commit
        make_repo(tmp_path / "local", SECOND)
        result = await go(local, url, force=True)
        assert result.sent_objects == 3  # the new file, the directory, the commit
        assert result.present_objects == 0
        assert len(server.asked("HEAD")) == 3


async def test_walk_tree_asks_about_everything(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        await go(local, url)
        lost = file_name(NOISE).path(archive=True)
        del server.objects[lost]
        server.log.clear()
        assert (await go(local, url)).sent_objects == 0
        assert len(server.asked("HEAD")) == 1
        result = await go(local, url, walk_tree=True)
        assert (result.sent_objects, lost in server.objects) == (1, True)
        assert result.present_objects == len(FIRST.stored) - 2


async def test_a_parent_under_another_ref_saves_questions_too(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        await go(local, url)
        make_repo(tmp_path, SECOND)
        local.refs.set(head("next"), SECOND.commit)
        server.log.clear()
        result = await go(local, url, ref="next")
        assert (result.sent_objects, result.present_objects) == (3, 0)
        assert len(server.asked("HEAD")) == 4


async def test_an_interrupted_push_goes_on_where_it_was(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):

        def fail_later(request: Request) -> Response | None:
            full = len(server.objects) >= 60 and request.method == "POST"
            return text(501, "enough") if full else None

        server.fault = fail_later
        with pytest.raises(OriginError, match="501"):
            await go(local, url)
        assert "commit" not in {path.rpartition(".")[2] for path in server.objects}
        server.fault, before = None, len(server.objects)
        result = await go(local, url)
        assert result.sent_objects == len(FIRST.stored) - before
        assert server.refs == {"heads/main": FIRST.commit}


async def test_a_commit_alone_sets_no_ref(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        result = await go(local, url, ref=FIRST.commit)
        assert (result.ref, server.refs) == (None, {})
        assert len(server.objects) == len(FIRST.stored)


async def test_several_commits_are_pushed_without_a_gap(tmp_path: Path) -> None:
    local = make_repo(tmp_path / "local", FIRST)
    async with treehub(tmp_path / "store") as hub:
        await go(local, hub.url)
        make_repo(tmp_path / "local", SECOND, THIRD)
        result = await go(local, hub.url)
        assert (result.commits, result.previous) == (2, FIRST.commit)
        for objects in (FIRST, SECOND, THIRD):
            assert hub.repo.has(objects.commit_name)
        assert hub.repo.refs.get(head("main")) == THIRD.commit


# -- refs ----------------------------------------------------------------------


async def test_a_branch_that_went_elsewhere_is_left_alone_but_for_force(
    tmp_path: Path,
) -> None:
    local = make_repo(tmp_path / "local", FIRST, OTHER)
    async with treehub(tmp_path / "store") as hub:
        await go(make_repo(tmp_path / "they", FIRST, SECOND), hub.url)
        with pytest.raises(NotFastForwardError, match=SECOND.commit) as caught:
            await go(local, hub.url)
        assert "--force" in caught.value.hint
        assert not hub.repo.has(OTHER.commit_name)
        result = await go(local, hub.url, force=True)
        assert result.previous == SECOND.commit
        assert hub.repo.refs.get(head("main")) == OTHER.commit


async def test_a_treehub_that_refuses_every_move_gets_a_hint(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        await go(local, url)
        make_repo(tmp_path, SECOND)
        with pytest.raises(RefRefusedError, match="Cannot force push") as caught:
            await go(local, url)
        assert "--force is safe" in caught.value.hint
        await go(local, url, force=True)
        assert server.refs == {"heads/main": SECOND.commit}


async def test_who_loses_a_race_is_told_so(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        await go(local, url)
        make_repo(tmp_path, SECOND)

        def someone_else_is_faster(request: Request) -> Response | None:
            if request.method == "POST" and request.path.endswith("heads/main"):
                server.refs["heads/main"] = OTHER.commit
            return None

        server.fault = someone_else_is_faster
        with pytest.raises(NotFastForwardError, match=f"moved to {OTHER.commit}"):
            await go(local, url)


async def test_a_ref_that_names_what_is_not_all_there_is_repaired(
    tmp_path: Path,
) -> None:
    local = make_repo(tmp_path / "local", FIRST)
    async with treehub(tmp_path / "store") as hub:
        await go(local, hub.url)
        os.unlink(hub.repo.object_path(file_name(NOISE)))
        make_repo(tmp_path / "local", SECOND)
        result = await go(local, hub.url)
        assert result.sent_objects == 4
        assert hub.repo.has(file_name(NOISE))
        assert hub.repo.refs.get(head("main")) == SECOND.commit


async def test_an_origin_that_never_has_enough_is_not_asked_for_ever(
    tmp_path: Path,
) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):

        def incomplete(request: Request) -> Response | None:
            if request.method == "POST" and "/refs/" in request.path:
                return text(412, '{"code": "commit_incomplete", "description": "no"}')
            return None

        server.fault = incomplete
        for walk_tree in (False, True):
            with pytest.raises(RefRefusedError, match="no"):
                await go(local, url, walk_tree=walk_tree)


async def test_what_answers_must_be_a_treehub(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        server.refs["heads/main"] = "<html>please log in</html>"
        with pytest.raises(OriginError, match="not a checksum"):
            await go(local, url)


# -- signatures ----------------------------------------------------------------


def sign(repo: Repo, objects: Objects, *signatures: bytes) -> ObjectName:
    name = ObjectName(objects.commit, ObjectType.COMMITMETA)
    data = serialize_metadata((("ostree.sign.ed25519", Variant("aay", signatures)),))
    overwrite(repo, name, data)
    return name


async def test_signatures_are_pushed_with_the_commit_and_after_it(
    tmp_path: Path,
) -> None:
    local = make_repo(tmp_path / "local", FIRST)
    async with treehub(tmp_path / "store") as hub:
        sign(local, FIRST, b"one")
        assert (await go(local, hub.url)).signatures == "sent"
        assert (await go(local, hub.url)).signatures == "present"
        sign(local, FIRST, b"two")
        result = await go(local, hub.url)
        assert (result.signatures, result.sent_objects) == ("sent", 0)
        kept = hub.repo.load_commitmeta(FIRST.commit)
        assert kept is not None
        assert parse_metadata(kept)[0][1].value == (b"one", b"two")


async def test_a_treehub_that_keeps_the_first_signature_for_ever_is_reported(
    tmp_path: Path,
) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        name = sign(local, FIRST, b"one")
        assert (await go(local, url)).signatures == "sent"
        sign(local, FIRST, b"one", b"two")
        assert (await go(local, url)).signatures == "refused"
        server.objects[name.path()] = b"nonsense"
        assert (await go(local, url)).signatures == "refused"


async def test_damaged_detached_metadata_is_named_and_not_sent(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    name = ObjectName(FIRST.commit, ObjectType.COMMITMETA)
    overwrite(local, name, b"nonsense")
    async with upstream() as (server, url):
        with pytest.raises(DamagedObjectError, match="commitmeta"):
            await go(local, url)
        assert FIRST.commit_name.path() not in server.objects


def overwrite(repo: Repo, name: ObjectName, data: bytes) -> None:
    Path(repo.object_path(name)).write_bytes(data)


def spoil(path: str, how: str) -> None:
    data = bytearray(Path(path).read_bytes())
    if how == "changed":
        data[len(data) // 2] ^= 1
    Path(path).write_bytes({"cut": data[:-1], "lengthened": data + b"x"}.get(how, data))


def mark_partial(repo: Repo, objects: Objects) -> None:
    Path(repo.partial_path(objects.commit)).touch()


# -- a local repository that is not well -----------------------------------------


@pytest.mark.parametrize("mode", [RepoMode.ARCHIVE, RepoMode.BARE_USER])
@pytest.mark.parametrize("content", [NOISE, b"7\n" * 50], ids=["large", "small"])
@pytest.mark.parametrize("damage", ["changed", "cut", "lengthened"])
async def test_a_damaged_object_is_named_and_its_commit_not_sent(
    tmp_path: Path, mode: RepoMode, content: bytes, damage: str
) -> None:
    local = make_repo(tmp_path, FIRST, mode=mode)
    name = file_name(content)
    spoil(local.object_path(name), damage)
    async with upstream() as (server, url):
        with pytest.raises(DamagedObjectError, match=name.checksum[2:]):
            await go(local, url)
        assert FIRST.commit_name.path() not in server.objects
        assert server.refs == {}


async def test_a_missing_object_is_named_and_its_commit_not_sent(
    tmp_path: Path,
) -> None:
    local = make_repo(tmp_path, FIRST)
    os.unlink(local.object_path(file_name(NOISE)))
    async with upstream() as (server, url):
        with pytest.raises(ObjectNotFoundError, match=file_name(NOISE).checksum):
            await go(local, url)
        assert FIRST.commit_name.path() not in server.objects


async def test_what_is_not_there_cannot_be_pushed(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        with pytest.raises(RefNotFoundError, match="no branch"):
            await go(local, url, ref="nowhere")
        with pytest.raises(ObjectNotFoundError):
            await go(local, url, ref=SECOND.commit)
        mark_partial(local, FIRST)
        with pytest.raises(ObjectNotFoundError, match="not complete") as caught:
            await go(local, url)
        assert "Pull it completely" in caught.value.hint
        assert server.objects == {}


async def test_objects_of_a_parent_repository_are_pushed_too(tmp_path: Path) -> None:
    make_repo(tmp_path / "parent", FIRST)
    child = Repo.init(tmp_path / "child", RepoMode.ARCHIVE)
    child.keys.set("core", "parent", str(tmp_path / "parent"))
    child.save_config()
    child = Repo.open(tmp_path / "child")
    child.refs.set(head("main"), FIRST.commit)
    async with upstream() as (server, url):
        await go(child, url)
        assert len(server.objects) == len(FIRST.stored)
