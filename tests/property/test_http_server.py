"""Any bytes sent to the HTTP server get an answer or an end, and never a fault."""

import logging

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.web.server.limits import Limits
from tests.web.server.talk import echo, serving

_LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /a%20b?c HTTP/1.1\r\n",
        b"HEAD http://x/y HTTP/1.0\r\n",
        b"GET //[ HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
        b"\r\n",
        b"\n",
        b"abc",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
    ]
)
_TALK = st.lists(st.one_of(_LINES, st.binary(max_size=30)), max_size=12).map(b"".join)
_STATUSES = (b"100 ", b"200 ", b"400 ", b"408 ", b"413 ", b"431 ", b"501 ", b"505 ")
_QUICK = Limits(head_seconds=5, stall_seconds=5, linger_seconds=1)


class _Faults(logging.Handler):
    """Keeps warnings and worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


@settings(max_examples=60)
@given(_TALK)
def test_whatever_is_sent_is_answered_or_ended(data: bytes) -> None:
    faults = _Faults()
    log = logging.getLogger("p2p.web")
    log.addHandler(faults)

    async def talk() -> bytes:
        async with serving(echo, limits=_QUICK) as server:
            with trio.fail_after(60):
                return await server.raw(data)

    try:
        told = trio.run(talk)
    finally:
        log.removeHandler(faults)
    assert faults.records == []
    if told:
        assert told.startswith(
            (b"HTTP/1.1 100 ", *(b"HTTP/1.1 " + s for s in _STATUSES))
        )


@pytest.mark.parametrize("size", [1, 7, 8, 9])
def test_h11_and_the_memory_of_it_agree_on_any_split(size: int) -> None:
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(5))

    async def talk() -> bytes:
        async with serving(echo) as server, await server.connect() as stream:
            for at in range(0, len(requests), size):
                await stream.send_all(requests[at : at + size])
            await stream.send_eof()
            return b"".join([piece async for piece in stream])

    told = trio.run(talk)
    assert [told.count(b"GET|/%d|" % n) for n in range(5)] == [1] * 5
