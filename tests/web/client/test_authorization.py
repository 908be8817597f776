"""Tokens: fetched, used, renewed, refused."""

import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2p.errors import ConnectError, CredentialsError, OriginError
from p2p.web.client.authorization import Authorization
from p2p.web.client.credentials import BasicUser, Credentials, OAuth2Client
from p2p.web.client.fetch import Fetcher
from p2p.web.client.request import Access
from p2p.web.client.retry import Retry
from p2p.web.url import basic
from tests.web.client.servers import Exchange, Handler, answer, replies, serving

PHRASE = "s:cret"
ACCESS = Access(connect_seconds=2, low_speed_seconds=2)


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


def authorization(fetcher: Fetcher, url: str, scope: str = "") -> Authorization:
    client = OAuth2Client(
        token_url=url, client_id="me", client_secret=PHRASE, scope=scope
    )
    return Authorization(
        fetcher,
        Credentials(oauth2=client),
        access=ACCESS,
        retry=Retry(random=Random(1)),
    )


def token(text: str, **fields: Any) -> Handler:
    return answer(200, json.dumps({"access_token": text, **fields}).encode())


def bearer(text: str) -> tuple[tuple[str, str], ...]:
    return (("Authorization", f"Bearer {text}"),)


async def test_without_credentials_nothing_is_sent(fetcher: Fetcher) -> None:
    none = Authorization(fetcher, Credentials(), access=ACCESS, retry=Retry())
    assert none.current() == ()
    assert await none.renew() == ()
    assert not none.refused(())


async def test_basic_is_known_at_once_and_never_renewed(fetcher: Fetcher) -> None:
    user = Authorization(
        fetcher,
        Credentials(basic=BasicUser(user="me", password=PHRASE)),
        access=ACCESS,
        retry=Retry(),
    )
    headers = (("Authorization", basic("me", PHRASE)),)
    assert user.current() == headers
    assert not user.refused(headers)


async def test_a_token_is_asked_for_once(fetcher: Fetcher) -> None:
    async with serving(token("t1")) as server:
        auth = authorization(fetcher, f"{server.url}/token", scope="a b")
        assert auth.current() is None
        assert await auth.renew() == await auth.renew() == bearer("t1")
        assert auth.current() == bearer("t1")
    (asked,) = server.asked
    assert asked.method == "POST"
    assert asked.body == b"grant_type=client_credentials&scope=a+b"
    assert asked.headers["authorization"] == basic("me", PHRASE)
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_who_comes_at_the_same_time_gets_the_same_token(
    fetcher: Fetcher,
) -> None:
    found: list[object] = []

    async with serving(replies(token("t1"), token("t2"))) as server:
        auth = authorization(fetcher, server.url)

        async def renew() -> None:
            found.append(await auth.renew())

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(renew)
    assert found == [bearer("t1")] * 5


async def test_a_token_is_renewed_before_it_expires(
    fetcher: Fetcher, mock_clock: MockClock
) -> None:
    handler = replies(
        token("t1", expires_in=100), token("t2", expires_in="10"), token("t3")
    )
    async with serving(handler) as server:
        auth = authorization(fetcher, server.url)
        await auth.renew()
        mock_clock.jump(69)
        assert auth.current() == bearer("t1")
        mock_clock.jump(2)
        assert auth.current() is None
        await auth.renew()
        mock_clock.jump(4)
        assert auth.current() == bearer("t2")
        mock_clock.jump(2)
        assert await auth.renew() == bearer("t3")


async def test_a_token_that_was_refused_is_replaced_once(fetcher: Fetcher) -> None:
    async with serving(replies(token("t1"), token("t2"))) as server:
        auth = authorization(fetcher, server.url)
        old = await auth.renew()
        assert auth.refused(old)
        new = await auth.renew()
        assert new == bearer("t2")
        # What was sent with the old one comes back late.
        assert auth.refused(old)
        assert auth.current() == new
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "status, body",
    [
        (400, b'{"error":"invalid_client"}'),
        (401, b""),
        (403, b""),
    ],
)
async def test_a_client_that_is_not_accepted_is_told_so(
    fetcher: Fetcher, status: int, body: bytes
) -> None:
    async with serving(answer(status, body)) as server:
        auth = authorization(fetcher, server.url)
        with pytest.raises(CredentialsError, match=server.url) as caught:
            await auth.renew()
    assert len(server.asked) == 1
    assert PHRASE not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>log in</html>",
        b"[]",
        b"{}",
        b'{"access_token":5}',
        b'{"access_token":"a\\r\\nX-Evil: 1"}',
        b'{"access_token":"x","expires_in":"never"}',
        b"[" * 60_000,
    ],
)
async def test_an_answer_without_a_usable_token_is_an_error(
    fetcher: Fetcher, body: bytes
) -> None:
    async with serving(answer(200, body)) as server:
        with pytest.raises(OriginError, match="no access token"):
            await authorization(fetcher, server.url).renew()


async def test_a_token_server_in_trouble_is_asked_again(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    async def cut(exchange: Exchange) -> None:
        exchange.hang_up()

    async with serving(replies(answer(503), cut, token("t1"))) as server:
        assert await authorization(fetcher, server.url).renew() == bearer("t1")
    assert len(server.asked) >= 3


async def test_a_token_server_that_is_gone_is_given_up(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    async with serving(answer()) as server:
        pass
    with pytest.raises(ConnectError, match=server.url):
        await authorization(fetcher, server.url).renew()
