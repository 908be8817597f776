from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from p2p.net.identity import open_identity
from p2p.net.tls import Endpoint
from tests.net.conformance import CHECKS, Pair, check_transport, run_check
from tests.net.pairs import memory_pair, tls_pair
from tests.net.pki import right_clock

Check = Callable[[Pair], Awaitable[None]]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_tls_over_tcp_does_what_a_transport_must(
    check: Check, tmp_path: Path
) -> None:
    left = Endpoint(open_identity(str(tmp_path / "left")), right_clock)
    right = Endpoint(open_identity(str(tmp_path / "right")), right_clock)

    def pair() -> AbstractAsyncContextManager[Pair]:
        return tls_pair(left, right)

    await run_check(check, pair)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_transport_in_memory_does_what_a_transport_must(
    check: Check,
) -> None:
    await run_check(check, memory_pair)


async def test_the_whole_suite_runs_as_one() -> None:
    await check_transport(memory_pair)
