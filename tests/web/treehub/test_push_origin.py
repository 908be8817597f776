"""Pushes to an origin that is overloaded, broken, full, or wants to know who we are."""

from pathlib import Path

import pytest
import trio

from p2p.errors import ConfigError, ConnectError, CredentialsError, OriginError
from p2p.ostree.refs import head
from p2p.ostree.repo import Repo
from p2p.web.client.credentials import BasicUser, Credentials
from p2p.web.client.fetch import Fetcher
from p2p.web.client.retry import Retry
from p2p.web.server.exchange import ClientGoneError, Request, Response, text
from p2p.web.treehub.client import PUSH_LIMITS, TreeHubClient
from p2p.web.treehub.push import Push, PushRequest, push
from tests.web.server.talk import serving
from tests.web.treehub.hub import make_repo, treehub
from tests.web.treehub.pushing import EAGER, FIRST, THIRD, go, upstream, url_of


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
async def test_errors_that_pass_are_waited_out(tmp_path: Path, status: int) -> None:
    local = make_repo(tmp_path, FIRST)
    count = 0

    def every_third(_request: Request) -> Response | None:
        nonlocal count
        count += 1
        return text(status, "not now") if count % 3 == 0 else None

    async with upstream() as (server, url):
        server.fault = every_third
        result = await go(local, url, retry=Retry(tries=20, first=0.001, longest=0.001))
        assert result.sent_objects == len(FIRST.stored)
        assert server.refs == {"heads/main": FIRST.commit}


async def test_connections_that_break_are_made_anew(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    count = 0

    def break_off(_request: Request) -> Response | None:
        nonlocal count
        count += 1
        if count % 5 == 0:
            raise ClientGoneError  # which has the server close it without an answer
        return None

    async with upstream() as (server, url):
        server.fault = break_off
        await go(local, url, retry=Retry(tries=20, first=0.001, longest=0.001))
        assert len(server.objects) == len(FIRST.stored)
        assert server.refs == {"heads/main": FIRST.commit}


async def test_an_origin_says_how_long_to_wait(tmp_path: Path) -> None:
    local = make_repo(tmp_path, THIRD)
    told = False

    def once(_request: Request) -> Response | None:
        nonlocal told
        if told:
            return None
        told = True
        return Response(503, (("Retry-After", "1"),), b"soon")

    slow = Retry(first=1000, longest=1000)
    async with upstream() as (server, url):
        server.fault = once
        with trio.fail_after(30):
            await go(local, url, ref=THIRD.commit, retry=slow)
        assert told


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 501, 507])
async def test_errors_that_stay_end_the_push_with_the_origins_words(
    tmp_path: Path, status: int
) -> None:
    local = make_repo(tmp_path, FIRST)

    def refuse(request: Request) -> Response | None:
        if request.method == "POST":
            return text(status, "this is why")
        return None

    async with upstream() as (server, url):
        server.fault = refuse
        with pytest.raises(OriginError, match="this is why") as caught:
            await go(local, url)
        assert caught.value.status == status
        assert len(server.asked("POST")) <= 30


async def test_an_origin_that_always_fails_is_given_up(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    async with upstream() as (server, url):
        server.fault = lambda _: text(500, "broken")
        with pytest.raises(OriginError, match="broken"):
            await go(local, url)
        assert len(server.log) == EAGER.tries


async def test_a_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    with pytest.raises(ConnectError):
        await go(local, "http://127.0.0.1:1/api/v3", retry=Retry(tries=1))


async def test_the_window_shrinks_when_the_origin_is_overloaded(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    running, most = 0, 0

    async with upstream() as (server, _):

        async def busy(request: Request) -> Response:
            nonlocal running, most
            if request.method == "POST" and running >= 3:
                return text(503, "too many")
            running += 1
            most = max(most, running)
            try:
                await trio.lowlevel.checkpoint()
                return await server(request)
            finally:
                running -= 1

        async with serving(busy) as crowded, Fetcher(PUSH_LIMITS) as fetcher:
            retry = Retry(tries=50, first=0.001, longest=0.001)
            client = TreeHubClient(fetcher, url_of(crowded), retry=retry)
            pushing = Push(repo=local, client=client, request=PushRequest(ref="main"))
            await pushing.run()
            assert pushing.status.phase == "done"
            assert pushing.status.done_objects == pushing.status.total_objects
            assert "jobs>" in repr(client)
        assert len(server.objects) == len(FIRST.stored)


async def test_more_is_done_at_once_as_long_as_all_goes_well(tmp_path: Path) -> None:
    local = make_repo(tmp_path, FIRST)
    running, most = 0, 0

    async with upstream() as (server, _):

        async def count(request: Request) -> Response:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await trio.sleep(0.01)
                return await server(request)
            finally:
                running -= 1

        async with serving(count) as patient:
            await go(local, url_of(patient))
    assert 8 < most <= 30


async def test_no_requests_at_once_are_none_at_all() -> None:
    async with Fetcher() as fetcher:
        with pytest.raises(ConfigError, match="jobs"):
            TreeHubClient(fetcher, "http://origin.example", jobs=0)


# -- who we are ----------------------------------------------------------------


async def test_a_user_in_the_url_or_in_the_credentials_is_let_in(
    tmp_path: Path,
) -> None:
    local = make_repo(tmp_path / "local", FIRST)
    only = ("Basic dXNlcjpwYXNz",)
    async with treehub(tmp_path / "store", credentials=only) as hub:
        with pytest.raises(CredentialsError):
            await go(local, hub.url)
        user = Credentials(basic=BasicUser(user="user", password="pass"))
        await go(local, hub.url, credentials=user)
        inside = hub.url.replace("http://", "http://user:pass@")
        assert (await go(local, inside)).sent_objects == 0


async def test_a_namespace_is_a_header_of_every_request(tmp_path: Path) -> None:
    local = make_repo(tmp_path / "local", FIRST)
    async with treehub(tmp_path / "store") as hub, Fetcher() as fetcher:
        client = TreeHubClient(
            fetcher, f"{hub.url}/", headers=(("x-ats-namespace", "team"),)
        )
        await push(local, client, PushRequest(ref="main"))
        there = Repo.open(tmp_path / "store/namespaces/team")
        assert there.refs.get(head("main")) == FIRST.commit
        assert not hub.repo.has(FIRST.commit_name)
