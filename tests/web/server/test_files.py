"""Files as answers: conditions, ranges, and what a cold disk changes."""

import os
import socket
from pathlib import Path

import pytest

from p2p.web.server import answer
from p2p.web.server.exchange import FileBody, RefusedError, Request, Response
from p2p.web.server.files import file_response, http_date
from tests.web.server.talk import serving

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    os.utime(path, ns=(0, 1_700_000_000_500_000_000))
    return path


def ask(path: Path, method: str = "GET", **headers: str) -> Response:
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    response = file_response(Request(method, "/", headers=lines), str(path))
    if isinstance(response.body, FileBody):
        response.body.close()
    return response


def part(response: Response) -> bytes:
    assert isinstance(response.body, FileBody)
    return CONTENT[response.body.offset :][: response.body.length]


def header(response: Response, name: str) -> str:
    return dict(response.headers)[name]


def test_a_whole_file_carries_validators(path: Path) -> None:
    response = ask(path)
    assert response.status == 200
    assert part(response) == CONTENT
    assert header(response, "Last-Modified") == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert header(response, "ETag") == f'"{1_700_000_000_500_000_000:x}-400"'


def test_head_opens_nothing_for_long_and_tells_the_length(path: Path) -> None:
    response = ask(path, "HEAD")
    assert (response.status, response.length, response.body) == (200, 1024, b"")


@pytest.mark.parametrize(
    "wanted,begin,end",
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1000-", 1000, 1024),
        ("bytes=1000-5000", 1000, 1024),
        ("bytes=-24", 1000, 1024),
        ("bytes=-5000", 0, 1024),
    ],
)
def test_one_range_is_served_as_asked(
    path: Path, wanted: str, begin: int, end: int
) -> None:
    response = ask(path, range=wanted)
    assert response.status == 206
    assert part(response) == CONTENT[begin:end]
    assert header(response, "Content-Range") == f"bytes {begin}-{end - 1}/1024"


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=9-2", "bytes=a-b"]
)
def test_other_ranges_get_everything(path: Path, wanted: str) -> None:
    assert ask(path, range=wanted).status == 200


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=9999-10000", "bytes=-0"])
def test_a_range_outside_the_file_is_refused_with_its_size(
    path: Path, wanted: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        ask(path, range=wanted)
    assert caught.value.status == 416
    assert dict(caught.value.headers) == {"Content-Range": "bytes */1024"}


def test_a_range_counts_only_for_the_file_the_client_knows(path: Path) -> None:
    known = ask(path)
    for validator in ("ETag", "Last-Modified"):
        again = ask(path, range="bytes=0-1", if_range=header(known, validator))
        assert again.status == 206
    assert ask(path, range="bytes=0-1", if_range='"other"').status == 200


def test_a_client_that_has_the_file_gets_304(path: Path) -> None:
    etag = header(ask(path), "ETag")
    date = http_date(1_700_000_000)
    assert ask(path, if_none_match=etag).status == 304
    assert ask(path, if_none_match=f'"x", W/{etag}').status == 304
    assert ask(path, if_none_match="*").status == 304
    assert ask(path, if_modified_since=date).status == 304
    assert ask(path, "HEAD", if_none_match=etag).status == 304


def test_a_client_with_another_file_gets_this_one(path: Path) -> None:
    assert ask(path, if_none_match='"x"').status == 200
    assert ask(path, if_none_match='"x"', if_modified_since="now").status == 200
    assert ask(path, if_modified_since=http_date(1_600_000_000)).status == 200
    assert ask(path, if_modified_since="yesterday").status == 200
    assert ask(path, if_modified_since="Mon, 01 Jan 99999 00:00:00 GMT").status == 200


def test_what_is_no_regular_file_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe", "."):
        with pytest.raises(FileNotFoundError):
            ask(tmp_path / name)


async def test_a_large_file_arrives_whole_over_a_socket(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "big").write_bytes(content)
    (tmp_path / "empty").touch()

    async def get(request: Request) -> Response:
        extra = (("Cache-Control", "no-store"),)
        return file_response(request, f"{tmp_path}{request.path}", headers=extra)

    async with serving(get) as server, server.talk() as talk:
        got = await talk.ask("GET", "/big")
        assert got.body == content
        assert got.headers["cache-control"] == "no-store"
        got = await talk.ask("GET", "/big", headers=[("Range", "bytes=999999-2000000")])
        assert got.body == content[999_999:2_000_001]
        assert (await talk.ask("HEAD", "/big")).headers["content-length"] == "3000000"
        assert (await talk.ask("GET", "/empty")).body == b""
        etag = (await talk.ask("GET", "/empty")).headers["etag"]
        fresh = await talk.ask("GET", "/empty", headers=[("If-None-Match", etag)])
        assert (fresh.status, fresh.body) == (304, b"")


async def test_bytes_that_are_not_in_memory_are_read_in_a_thread(path: Path) -> None:
    with path.open("rb") as file:
        fd = file.fileno()
        assert await answer.read_file(fd, 3, 5) == CONTENT[3:8]
        assert await answer.read_file(fd, 1020, 50) == CONTENT[1020:]
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert await answer.read_file(fd, 3, 5) == CONTENT[3:8]


async def test_filesystems_that_cannot_tell_are_read_at_once() -> None:
    memory = os.memfd_create("test")
    try:
        os.write(memory, CONTENT)
        assert await answer.read_file(memory, 3, 5) == CONTENT[3:8]
    finally:
        os.close(memory)


async def test_what_cannot_be_read_is_an_error() -> None:
    left, right = socket.socketpair()
    with left, right, pytest.raises(OSError, match="Illegal seek"):
        await answer.read_file(left.fileno(), 0, 5)
