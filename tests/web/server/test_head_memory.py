"""What may be taken for known, and what must go to the parser."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.web.server.head_memory import HeadMemory

LINES = b"Host: a\r\nUser-Agent: x\r\n"
GET = b"GET /1 HTTP/1.1\r\n" + LINES + b"\r\n"
POST = b"POST /1 HTTP/1.1\r\n" + LINES + b"Content-Length: 10\r\nX: y\r\n\r\n"


def knowing(*heads: bytes) -> HeadMemory:
    memory = HeadMemory()
    for head in heads:
        judge = h11.Connection(h11.SERVER)
        judge.receive_data(head)
        event = judge.next_event()
        assert isinstance(event, h11.Request)
        headers = {name.decode(): value.decode() for name, value in event.headers}
        memory.remember(head, headers)
    return memory


def test_nothing_is_known_at_first() -> None:
    assert HeadMemory().recall(GET) is None
    assert HeadMemory().recall(POST) is None


def test_a_get_with_the_same_lines_is_known() -> None:
    memory = knowing(GET)
    for method in (b"GET", b"HEAD"):
        data = method + b" /other?q HTTP/1.1\r\n" + LINES + b"\r\nmore"
        head = memory.recall(data)
        assert head is not None
        assert (head.method, head.target) == (method.decode(), "/other?q")
        assert head.headers == {"host": "a", "user-agent": "x"}
        assert (head.length, data[head.size :]) == (0, b"more")


def test_a_post_with_another_length_is_known() -> None:
    head = knowing(GET, POST).recall(POST.replace(b"10", b"123") + b"body")
    assert head is not None
    assert (head.length, head.headers["content-length"]) == (123, "123")
    assert head.headers["x"] == "y"
    assert head.size == len(POST) + 1


@pytest.mark.parametrize(
    "data",
    [
        GET[:-1],
        GET.replace(b"Host: a", b"Host: b"),
        GET.replace(b"1.1\r\n", b"1.0\r\n"),
        GET.replace(b"1.1\r\n", b"1.1\n"),
        GET.replace(b"GET", b"DELETE"),
        GET.replace(b"GET", b"get"),
        GET.replace(b"/1", b"http://a/1"),
        GET.replace(b"/1", b"/1 "),
        GET.replace(b"/1", b"/\xe9"),
        GET.replace(LINES, LINES + b"Range: bytes=0-1\r\n"),
        GET.replace(LINES, b""),
        b"\r\n" + GET,
        POST.replace(b"10", b"-1"),
        POST.replace(b"10", b"1 0"),
        POST.replace(b"10", b"10, 10"),
        POST.replace(b"10", b""),
        POST.replace(b"10", b"9" * 16),
        POST.replace(b"X: y", b"Transfer-Encoding: chunked"),
        POST.replace(b"X: y", b"Content-Length: 10"),
        POST.replace(b"POST", b"PUT"),
        POST.replace(b"Content-Length: 10\r\n", b""),
    ],
)
def test_anything_else_is_not(data: bytes) -> None:
    assert knowing(GET, POST).recall(data) is None


@pytest.mark.parametrize(
    "head",
    [
        POST.replace(b"X: y", b"Content-Length: 10"),
        POST.replace(b"X: y", b"Expect: 100-continue"),
        POST.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked"),
        POST.replace(b"Content-Length: 10", b"X-Content-Length: 10"),
        GET.replace(LINES, LINES + b"Content-Length: 0\r\n"),
        b"GET /1 HTTP/1.0\r\n" + LINES + b"\r\n",
        b"PUT" + POST[4:],
        GET.replace(b"\r\n", b"\n"),
    ],
)
def test_what_is_not_plain_is_not_remembered(head: bytes) -> None:
    assert knowing(head).recall(head) is None


_NOISE = st.sampled_from(
    [b"\r\n", b"\n", b"Host: a", b"Content-Length: 10", b"X: y", b"\0", b" ", b"GET"]
)


@given(st.lists(_NOISE, max_size=6).map(b"".join), st.sampled_from([GET, POST]))
def test_the_parser_would_have_read_the_same(noise: bytes, seed: bytes) -> None:
    """Whatever is recalled, h11 reads alike."""
    memory = knowing(GET, POST)
    at = len(seed) // 2
    for data in (seed + noise, seed[:at] + noise + seed[at:], noise + seed):
        head = memory.recall(data)
        if head is None:
            continue
        judge = h11.Connection(h11.SERVER)
        judge.receive_data(data)
        event = judge.next_event()
        assert isinstance(event, h11.Request)
        assert event.method.decode() == head.method
        assert event.target.decode() == head.target
        assert {n.decode(): v.decode() for n, v in event.headers} == head.headers
        assert len(data) - len(judge.trailing_data[0]) == head.size
