"""A name server that never answers holds nothing up but the one fetch."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from p2p.errors import TransportTimeoutError
from p2p.web.client.fetch import Fetcher
from p2p.web.client.request import Access, Request
from tests.require import require
from tests.web.client.servers import answer, serving

# A namespace of its own, where names are asked for at a socket that stays silent.
_SET_UP = """
ip link set lo up &&
echo 'nameserver 127.0.0.1' > "$1/resolv.conf" &&
mount --bind "$1/resolv.conf" /etc/resolv.conf &&
exec "$2" -m tests.web.client.test_dead_dns
"""


@pytest.mark.root
def test_a_silent_name_server_holds_up_neither_other_fetches_nor_the_end(
    tmp_path: Path,
) -> None:
    require("unshare", "ip")
    result = subprocess.run(
        ["unshare", "-mn", "sh", "-c", _SET_UP, "sh", tmp_path, sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


async def main() -> None:
    access = Access(connect_seconds=1)
    async with serving(answer(200, b"x")) as server:
        fetcher = Fetcher()
        async with fetcher:
            with pytest.raises(TransportTimeoutError):
                await fetcher.fetch(
                    Request(url="http://a.example/", max_bytes=9, access=access)
                )
            with trio.fail_after(3):
                await fetcher.fetch(Request(url=server.url, max_bytes=9))
            with trio.move_on_after(0.2):
                await fetcher.fetch(Request(url="http://b.example/", max_bytes=9))
            start = time.monotonic()
        # The resolver waits for ten seconds.
        assert time.monotonic() - start < 5


if __name__ == "__main__":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 53))
        trio.run(main)
