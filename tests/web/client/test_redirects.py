"""Where the fetcher lets itself be sent, and what it takes along."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from p2p.errors import OriginError
from p2p.web.client.fetch import Fetcher
from p2p.web.client.request import Access, Headers, Request
from tests.web.client.servers import (
    Exchange,
    Handler,
    answer,
    make_identity,
    make_tls,
    serving,
)

ACCESS = Access(connect_seconds=2, low_speed_seconds=2)
SECRETS: Headers = (("Authorization", "Bearer token"), ("X-Ats-Namespace", "site"))


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


def get(url: str, access: Access = ACCESS) -> Request:
    return Request(
        url=url,
        max_bytes=1000,
        access=access,
        headers=(("X-Public", "1"),),
        private=SECRETS,
    )


def moved(target: str, status: int = 302) -> Handler:
    """Redirect everything but /end, which answers "here"."""

    async def handle(exchange: Exchange) -> None:
        if exchange.asked.path == "/end":
            await exchange.reply(200, b"here")
        else:
            await exchange.reply(status, b"go there", {"Location": target})

    return handle


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("want_headers", [True, False])
async def test_a_redirect_is_followed(
    fetcher: Fetcher, status: int, want_headers: bool
) -> None:
    async with serving(moved("/end", status)) as server:
        request = replace(get(f"{server.url}/x"), want_headers=want_headers)
        response = await fetcher.fetch(request)
    assert (response.body, response.url) == (b"here", f"{server.url}/end")
    assert server.paths == ["/x", "/end"]


async def test_the_same_server_gets_credentials_after_a_redirect_too(
    fetcher: Fetcher,
) -> None:
    async with serving(moved("/end")) as server:
        await fetcher.fetch(get(f"{server.url}/x"))
    for asked in server.asked:
        assert asked.headers["authorization"] == "Bearer token"
        assert asked.headers["x-ats-namespace"] == "site"


async def test_another_server_gets_no_credentials(fetcher: Fetcher) -> None:
    async with (
        serving(answer(200, b"there")) as other,
        serving(moved(f"{other.url}/there")) as server,
    ):
        response = await fetcher.fetch(get(f"{server.url}/x"))
    assert response.body == b"there"
    assert not response.trusted
    headers = other.asked[0].headers
    assert headers["x-public"] == "1"
    assert "authorization" not in headers
    assert "x-ats-namespace" not in headers


async def test_credentials_do_not_come_back_with_a_second_redirect(
    fetcher: Fetcher,
) -> None:
    home: list[str] = []

    async def back(exchange: Exchange) -> None:
        await exchange.reply(302, b"", {"Location": f"{home[0]}/end"})

    async with (
        serving(back) as other,
        serving(moved(f"{other.url}/there")) as server,
    ):
        home.append(server.url)
        response = await fetcher.fetch(get(f"{server.url}/x"))
    assert response.body == b"here"
    assert "authorization" not in server.asked[-1].headers


async def test_another_server_is_not_shown_the_client_certificate(
    fetcher: Fetcher, tmp_path: Path
) -> None:
    identity = make_identity(tmp_path)
    tls = make_tls(tmp_path / "tls", client=identity.certificate_path)
    access = replace(
        ACCESS, client_pem=identity.pem, ca_path=str(tls.authority), http2=False
    )
    async with serving(answer(200, b"welcome"), tls=tls.context) as closed:
        response = await fetcher.fetch(get(closed.url, access))
        assert response.body == b"welcome"
        async with serving(moved(closed.url)) as server:
            with pytest.raises(Exception, match=closed.url):
                await fetcher.fetch(get(f"{server.url}/x", access))


async def test_a_circle_is_left_after_twenty_rounds(fetcher: Fetcher) -> None:
    async with serving(moved("/again")) as server:
        with pytest.raises(OriginError, match="more than 20 times") as caught:
            await fetcher.fetch(get(f"{server.url}/x"))
    assert len(server.asked) == 21
    assert caught.value.status == 302


async def test_nothing_is_fetched_unencrypted_that_was_asked_for_encrypted(
    fetcher: Fetcher, tmp_path: Path
) -> None:
    tls = make_tls(tmp_path)
    async with (
        serving(answer(200, b"x")) as plain,
        serving(moved(plain.url), tls=tls.context) as server,
    ):
        access = replace(ACCESS, ca_path=str(tls.authority))
        with pytest.raises(OriginError, match="not encrypted"):
            await fetcher.fetch(get(f"{server.url}/x", access))
    assert not plain.asked


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
async def test_only_http_is_followed(fetcher: Fetcher, target: str) -> None:
    async with serving(moved(target)) as server:
        with pytest.raises(OriginError, match="redirected to"):
            await fetcher.fetch(get(f"{server.url}/x"))


async def test_a_redirect_to_nowhere_is_an_answer(fetcher: Fetcher) -> None:
    async with serving(answer(302, b"where to?")) as server:
        response = await fetcher.fetch(get(f"{server.url}/x"))
    assert response.status == 302
    with pytest.raises(OriginError, match="302"):
        response.check()


async def test_what_was_posted_is_not_sent_elsewhere(fetcher: Fetcher) -> None:
    async with serving(moved("/end")) as server:
        request = replace(get(f"{server.url}/x"), method="POST", body=b"data")
        response = await fetcher.fetch(request)
        with pytest.raises(OriginError, match="to /end") as caught:
            response.check()
    assert server.paths == ["/x"]
    assert "not followed" in caught.value.hint
