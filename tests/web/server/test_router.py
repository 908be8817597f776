"""Which handler answers which path."""

import pytest

from p2p.web.server.exchange import (
    Handler,
    RefusedError,
    Request,
    Response,
    reason,
    text,
)
from p2p.web.server.router import Router


def saying(word: str) -> Handler:
    async def say(request: Request) -> Response:
        return text(200, f"{word} {dict(request.params)}")

    return say


async def ask(router: Router, method: str, path: str) -> str:
    response = await router(Request(method, path))
    assert isinstance(response.body, bytes)
    return response.body.decode()


async def test_parts_of_the_path_are_named() -> None:
    router = Router()
    router.add("GET", "/a/{x}/{y}", saying("two"))
    router.add("GET POST", "/b/{rest:path}", saying("rest"))
    assert await ask(router, "GET", "/a/1/2") == "two {'x': '1', 'y': '2'}"
    assert await ask(router, "GET", "/b/1/2") == "rest {'rest': '1/2'}"
    assert await ask(router, "POST", "/b/\n") == "rest {'rest': '\\n'}"


async def test_every_route_is_below_every_prefix() -> None:
    router = Router(prefixes=("", "/api/v2"))
    router.add("GET", "/a.b", saying("here"))
    for path in ("/a.b", "/api/v2/a.b"):
        assert await ask(router, "GET", path) == "here {}"
    for path in ("/api/a.b", "/aXb", "/a.b/", "/x/a.b"):
        with pytest.raises(RefusedError):
            await ask(router, "GET", path)


async def test_head_is_answered_by_get_unless_it_has_its_own_route() -> None:
    router = Router()
    router.add("GET", "/a", saying("get"))
    router.add("GET", "/b", saying("get"))
    router.add("HEAD", "/b", saying("head"))
    assert await ask(router, "HEAD", "/a") == "get {}"
    assert await ask(router, "HEAD", "/b") == "head {}"


async def test_no_route_is_404_and_no_method_405() -> None:
    router = Router()
    router.add("POST", "/a", saying("a"))
    with pytest.raises(RefusedError) as caught:
        await ask(router, "GET", "/b")
    assert caught.value.status == 404
    with pytest.raises(RefusedError) as caught:
        await ask(router, "GET", "/a")
    assert caught.value.status == 405
    assert dict(caught.value.headers) == {"Allow": "POST"}


def test_unknown_statuses_have_a_reason_too() -> None:
    assert reason(404) == "Not Found"
    assert reason(799) == "Unknown"
