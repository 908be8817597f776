"""Requests with a body, other methods than GET, and proxies."""

import io
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from p2p.errors import (
    ConfigError,
)
from p2p.web.client.fetch import Fetcher
from p2p.web.client.request import Access, Request, Upload
from tests.web.client.servers import Exchange, answer, serving

ACCESS = Access(connect_seconds=2, low_speed_seconds=2)
MIB = 1 << 20


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


def get(url: str) -> Request:
    return Request(url=url, max_bytes=MIB, access=ACCESS, want_headers=False)


async def echo(exchange: Exchange) -> None:
    asked = exchange.asked
    await exchange.reply(200, asked.method.encode() + b" " + asked.body)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_bytes_are_sent_as_they_are(fetcher: Fetcher, method: str) -> None:
    async with serving(echo) as server:
        request = Request(
            url=server.url, max_bytes=MIB, method=method, body=b"data", access=ACCESS
        )
        response = await fetcher.fetch(request)
    assert response.body == method.encode() + b" data"
    assert server.asked[0].headers["content-length"] == "4"
    assert "expect" not in server.asked[0].headers


async def test_an_empty_body_is_sent_with_its_length(fetcher: Fetcher) -> None:
    async with serving(echo) as server:
        request = Request(
            url=server.url, max_bytes=MIB, method="POST", body=b"", access=ACCESS
        )
        assert (await fetcher.fetch(request)).body == b"POST "
    assert server.asked[0].headers["content-length"] == "0"


async def test_a_file_is_sent_from_its_start(fetcher: Fetcher, tmp_path: Path) -> None:
    body = os.urandom(2 * MIB)
    (tmp_path / "file").write_bytes(body)
    async with serving(echo) as server:
        with (tmp_path / "file").open("rb") as file:
            file.seek(5)
            request = Request(
                url=server.url,
                max_bytes=4 * MIB,
                method="PUT",
                body=Upload(file, len(body)),
                access=ACCESS,
            )
            response = await fetcher.fetch(request)
    assert response.body == b"PUT " + body


async def test_a_body_is_sent_again_where_an_idle_connection_had_been_closed(
    fetcher: Fetcher,
) -> None:
    async def once(exchange: Exchange) -> None:
        exchange.hang_up()
        await exchange.reply(200, exchange.asked.body)

    async with serving(once) as server:
        for number in range(3):
            request = Request(
                url=server.url,
                max_bytes=MIB,
                method="POST",
                body=b"%d" % number,
                access=ACCESS,
            )
            assert (await fetcher.fetch(request)).body == b"%d" % number


@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
async def test_requests_without_a_body_have_none(fetcher: Fetcher, method: str) -> None:
    async with serving(answer(200)) as server:
        response = await fetcher.fetch(
            Request(url=server.url, max_bytes=MIB, method=method, access=ACCESS)
        )
    assert response.status == 200
    assert server.asked[0].method == method
    assert "content-length" not in server.asked[0].headers


async def test_head_tells_the_headers_only(fetcher: Fetcher) -> None:
    async with serving(answer(200, b"body")) as server:
        response = await fetcher.fetch(
            Request(url=server.url, max_bytes=1, method="HEAD", access=ACCESS)
        )
    assert response.body == b""
    assert response.headers["content-length"] == "4"


async def test_a_file_that_is_shorter_than_announced_is_an_error(
    fetcher: Fetcher,
) -> None:
    async with serving(echo) as server:
        request = Request(
            url=server.url,
            max_bytes=MIB,
            method="PUT",
            body=Upload(io.BytesIO(b"short"), 100),
            access=ACCESS,
        )
        with pytest.raises(ConfigError, match="95 bytes before the 100"):
            await fetcher.fetch(request)


async def test_a_plain_get_after_an_upload_is_a_plain_get(fetcher: Fetcher) -> None:
    async with serving(echo) as server:
        for method, body in [("PUT", b"x"), ("GET", None), ("HEAD", None)]:
            request = Request(
                url=server.url, max_bytes=MIB, method=method, body=body, access=ACCESS
            )
            await fetcher.fetch(request)
        await fetcher.fetch(get(server.url))
    assert [asked.method for asked in server.asked] == ["PUT", "GET", "HEAD", "GET"]
    assert "content-length" not in server.asked[1].headers


async def test_a_proxy_is_asked_for_the_whole_url(fetcher: Fetcher) -> None:
    async with serving(answer(200, b"by proxy")) as proxy:
        access = replace(ACCESS, proxy=proxy.url)
        request = replace(get("http://origin.invalid/file"), access=access)
        assert (await fetcher.fetch(request)).body == b"by proxy"
    assert proxy.asked[0].target == "http://origin.invalid/file"
