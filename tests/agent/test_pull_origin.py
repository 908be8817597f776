"""Pulls from origins that lie, stall and break: finished, or refused and nothing lost.

What the origin client does about each fault is tested in `tests/web`; here it is the
whole command that is looked at: status, message, and what the repository holds.
"""

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.agent.origins import device, pull, run_origin
from tests.pulls import REF, REMOTE, Client
from tests.web.client.servers import Exchange, Handler, replies
from tests.web.treehub.hub import Objects, file_name, filez, make_commit

CONTENT = b"the content of a file\n" * 200
# Longer than what is handed on whole, and no compressor makes it small.
LARGE = os.urandom(1_500_000)
VICTIM = file_name(CONTENT)


@pytest.fixture
def made() -> Objects:
    files = {f"file-{number}": b"%d\n" % number for number in range(50)}
    return make_commit(files | {"victim": CONTENT, "large": LARGE})


# -- what an origin can do ---------------------------------------------------------


def status(code: int, headers: Mapping[str, str] | None = None) -> Handler:
    async def handle(exchange: Exchange) -> None:
        await exchange.reply(code, b"sorry", headers or {})

    return handle


def body(data: bytes) -> Handler:
    async def handle(exchange: Exchange) -> None:
        await exchange.reply(200, data)

    return handle


def cut_off(data: bytes) -> Handler:
    async def handle(exchange: Exchange) -> None:
        await exchange.reply(200, data[: len(data) // 2], length=len(data))
        exchange.hang_up()

    return handle


def reset(data: bytes) -> Handler:
    async def handle(exchange: Exchange) -> None:
        await exchange.reply(200, data[: len(data) // 2], length=len(data))
        exchange.reset()

    return handle


async def redirect_to_itself(exchange: Exchange) -> None:
    await exchange.reply(302, b"", {"Location": exchange.asked.target})


async def redirect_to_a_file(exchange: Exchange) -> None:
    await exchange.reply(302, b"", {"Location": "file:///etc/passwd"})


def flipped(data: bytes) -> bytes:
    return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]


def with_size(content: bytes, size: int) -> bytes:
    """A `.filez` whose header claims another size."""
    good = filez(content)
    return good[:8] + struct.pack(">Q", size) + good[16:]


def bomb(claimed: int, size: int) -> bytes:
    """A `.filez` of some kilobytes whose stream goes on for `size` bytes."""
    head = with_size(b"", claimed)[: len(filez(b"")) - len(deflate(b""))]
    return head + deflate(bytes(size))


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


GOOD = filez(CONTENT)
NAMED = VICTIM.path(archive=True)
GOOD_LARGE = filez(LARGE)

LASTING = {
    "not found": (status(404), 21, "404"),
    "forbidden": (status(403), 21, "403"),
    "unauthorized": (status(401), 26, "401"),
    "server error": (status(500), 25, "500"),
    "not implemented": (status(501), 25, "501"),
    "busy": (status(503, {"Retry-After": "0"}), 25, "503"),
    "cut off": (cut_off(GOOD), 20, "tried 2 times"),
    "reset": (reset(GOOD), 20, "tried 2 times"),
    "empty": (body(b""), 40, NAMED),
    "a log-in page": (body(b"<html>Please log in</html>" * 20), 40, NAMED),
    "corrupt": (body(flipped(GOOD)), (40, 41), NAMED),
    "another object": (body(filez(b"something else")), 41, NAMED),
    "size too small": (body(with_size(CONTENT, 10)), 41, "10"),
    "size too large": (body(with_size(CONTENT, 10**6)), 41, "1000000"),
    "size beyond all files": (body(with_size(CONTENT, 1 << 62)), 42, "claims"),
    "trailing bytes": (body(GOOD + b"more"), 40, "after the end"),
    "bomb": (body(bomb(100, 200 << 20)), 41, "100"),
    "bomb that says so": (body(bomb(200 << 20, 200 << 20)), 41, NAMED),
    "redirect loop": (redirect_to_itself, 25, "redirect"),
    "redirect to a file": (redirect_to_a_file, 25, "file:"),
}


@pytest.mark.parametrize("fault", LASTING)
async def test_a_fault_that_lasts_ends_in_an_error_that_says_what_it_is(
    fault: str, made: Objects, tmp_path: Path
) -> None:
    handler, code, said = LASTING[fault]
    async with run_origin(made) as origin:
        client = device(tmp_path, origin)
        origin.break_file(VICTIM, handler)
        result = await pull(client)
        assert result.status in (code if isinstance(code, tuple) else (code,)), result
        assert said in result.err
        assert len(result.err.splitlines()) == 2, result.err
        client.check_nothing_visible()
        # What came is kept, and the rest comes when the origin is well again.
        kept = client.staged()
        origin.faults.clear()
        before = len(origin.server.asked)
        (await pull(client)).check()
        client.check_sound()
        asked = {asked.path for asked in origin.server.asked[before:]}
        assert len([path for path in asked if path.endswith("z")]) <= 52 - kept + 3


PASSING = {
    "server error": status(500),
    "busy": status(503, {"Retry-After": "0"}),
    "too many requests": status(429, {"Retry-After": "0"}),
    "cut off": cut_off(GOOD),
    "reset": reset(GOOD),
    "empty": body(b""),
    "corrupt": body(flipped(GOOD)),
    "another object": body(filez(b"something else")),
    "trailing bytes": body(GOOD + b"more"),
}


@pytest.mark.parametrize("mode", ["bare-user", "archive"])
@pytest.mark.parametrize("fault", PASSING)
async def test_a_fault_that_passes_costs_only_another_request(
    fault: str, mode: str, made: Objects, tmp_path: Path
) -> None:
    async with run_origin(made) as origin:
        client = device(tmp_path, origin, mode)
        origin.break_file(VICTIM, replies(PASSING[fault], body(GOOD)))
        (await pull(client)).check()
        client.check_sound()
        assert client.refs() == {f"remotes/{REMOTE}/{REF}": made.commit}


LARGE_FAULTS: Mapping[str, Handler] = {
    "cut off": cut_off(GOOD_LARGE),
    "corrupt": body(flipped(GOOD_LARGE)),
    "corrupt early": body(GOOD_LARGE[:300_000] + b"!" * 500 + GOOD_LARGE[300_500:]),
    "size too small": body(with_size(LARGE, 1_000_000)),
    "trailing bytes": body(GOOD_LARGE + b"more"),
    "another object": body(filez(os.urandom(1_500_000))),
}


@pytest.mark.parametrize("mode", ["bare-user", "archive"])
@pytest.mark.parametrize("fault", LARGE_FAULTS)
async def test_a_large_file_that_came_wrong_in_part_is_begun_anew(
    fault: str, mode: str, made: Objects, tmp_path: Path
) -> None:
    async with run_origin(made) as origin:
        client = device(tmp_path, origin, mode)
        origin.break_file(
            file_name(LARGE), replies(LARGE_FAULTS[fault], body(GOOD_LARGE))
        )
        (await pull(client)).check()
        client.check_sound()


@pytest.mark.parametrize("mode", ["bare-user", "archive"])
@pytest.mark.parametrize("fault", LARGE_FAULTS)
async def test_a_large_file_that_is_always_wrong_is_not_kept(
    fault: str, mode: str, made: Objects, tmp_path: Path
) -> None:
    async with run_origin(made) as origin:
        client = device(tmp_path, origin, mode)
        origin.break_file(file_name(LARGE), LARGE_FAULTS[fault])
        result = await pull(client)
        assert result.status in (20, 40, 41)
        client.check_nothing_visible()
        origin.faults.clear()
        (await pull(client)).check()
        client.check_sound()


@pytest.mark.parametrize("fault", ["not found", "corrupt", "empty", "cut off"])
async def test_a_directory_that_is_wrong_is_refused_too(
    fault: str, made: Objects, tmp_path: Path
) -> None:
    name = next(n for n in made.stored if n.type.extension == "dirtree")
    data = made.stored[name]
    handler = {
        "not found": status(404),
        "corrupt": body(b"?" + data[1:]),
        "empty": body(b""),
        "cut off": cut_off(data),
    }[fault]
    async with run_origin(made) as origin:
        client = device(tmp_path, origin)
        origin.faults[f"/objects/{name.path()}"] = handler
        result = await pull(client)
        assert result.status in (20, 21, 40, 41)
        client.check_nothing_visible()
        origin.faults[f"/objects/{name.path()}"] = replies(handler, body(data))
        again = await pull(client)
        assert again.status == (21 if fault == "not found" else 0)


@pytest.mark.parametrize(
    "path,handler,code",
    [
        (f"/refs/heads/{REF}", status(500), 25),
        (f"/refs/heads/{REF}", body(b"not a checksum"), 25),
        (f"/refs/heads/{REF}", body(b"a" * 5000), 25),
        (f"/refs/heads/{REF}", body(b""), 25),
        (f"/refs/heads/{REF}", redirect_to_itself, 25),
        (f"/refs/heads/{REF}", status(404), 21),
    ],
)
async def test_a_ref_that_is_none(
    path: str, handler: Handler, code: int, made: Objects, tmp_path: Path
) -> None:
    async with run_origin(made) as origin:
        client = device(tmp_path, origin)
        origin.faults[path] = handler
        result = await pull(client)
        assert result.status == code, result
        assert [a for a in origin.server.paths if "/objects/" in a] == []


async def test_an_origin_that_is_away_is_an_error_of_one_line(tmp_path: Path) -> None:
    client = Client.create(tmp_path / "device", "bare-user", "http://127.0.0.1:9")
    result = await pull(client, "--network-retries=0", REF)
    assert result.status == 23
    assert "127.0.0.1:9" in result.err
    assert len(result.err.splitlines()) == 2


async def test_a_ref_that_moves_while_it_is_pulled_is_pulled_as_it_was(
    made: Objects, tmp_path: Path
) -> None:
    newer = make_commit({"victim": b"of the new commit\n"}, parent=made.commit, time=2)

    async def move(exchange: Exchange) -> None:
        origin.publish(newer)
        origin.faults.clear()
        await exchange.reply(200, GOOD)

    async with run_origin(made) as origin:
        client = device(tmp_path, origin)
        origin.break_file(VICTIM, move)
        result = (await pull(client, "--json", REF)).check()
        assert result.json["commit"] == made.commit
        client.check_sound()
        result = (await pull(client, "--json", REF)).check()
        assert result.json["commit"] == newer.commit
        client.check_sound()


async def test_a_commit_that_is_deleted_while_it_is_pulled_is_given_up_for_the_new_one(
    made: Objects, tmp_path: Path
) -> None:
    newer = make_commit({"large": LARGE, "new": b"new\n"}, parent=made.commit, time=2)

    async def prune(exchange: Exchange) -> None:
        origin.files.clear()
        origin.publish(newer)
        origin.faults.clear()
        await exchange.reply(404)

    async with run_origin(made) as origin:
        client = device(tmp_path, origin)
        origin.break_file(VICTIM, prune)
        result = await pull(client)
        assert result.status == 21
        assert "was complete" in result.err
        client.check_nothing_visible()
        (await pull(client)).check()
        client.check_sound()
        assert client.refs() == {f"remotes/{REMOTE}/{REF}": newer.commit}


async def test_what_was_staged_is_not_asked_for_again(
    made: Objects, tmp_path: Path
) -> None:
    """An origin that breaks down at each file in turn serves every file once."""
    async with run_origin(made) as origin:
        client = device(tmp_path, origin)
        origin.break_file(VICTIM, status(404))
        assert (await pull(client)).status == 21
        kept = {
            path.stem + path.parent.name
            for path in (client.path / "extensions/p2p/stage/objects").rglob("*.*")
        }
        origin.faults.clear()
        before = len(origin.server.asked)
        (await pull(client)).check()
        asked = {Path(a.path) for a in origin.server.asked[before:]}
        again = {
            path.stem + path.parent.name
            for path in asked
            if path.suffix != ".commitmeta"
        }
        assert not kept & again
