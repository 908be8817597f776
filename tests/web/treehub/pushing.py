"""What the tests of pushes share: commits, and one push to a URL."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from p2p.ostree.repo import Repo
from p2p.web.client.credentials import Credentials
from p2p.web.client.fetch import Fetcher
from p2p.web.client.retry import Retry
from p2p.web.treehub.client import PUSH_LIMITS, TreeHubClient
from p2p.web.treehub.push import PushRequest, PushResult, push
from tests.web.server.talk import Running, serving
from tests.web.treehub.hub import make_commit
from tests.web.treehub.upstream import Upstream

NOISE = random.Random(3).randbytes(1_500_000)
FIRST = make_commit({f"f{n}": b"%d\n" % n * 50 for n in range(100)} | {"big": NOISE})
SECOND = make_commit(
    {f"f{n}": b"%d\n" % n * 50 for n in range(1, 100)} | {"big": NOISE, "new": b"new"},
    parent=FIRST.commit,
    time=2,
)
THIRD = make_commit({"only": b"this"}, parent=SECOND.commit, time=3)
OTHER = make_commit({"other": b"other"}, parent=FIRST.commit, time=4)
EAGER = Retry(first=0.001, longest=0.001)


async def go(
    repo: Repo,
    url: str,
    *,
    ref: str = "main",
    force: bool = False,
    walk_tree: bool = False,
    credentials: Credentials | None = None,
    retry: Retry = EAGER,
) -> PushResult:
    async with Fetcher(PUSH_LIMITS) as fetcher:
        client = TreeHubClient(fetcher, url, credentials=credentials, retry=retry)
        request = PushRequest(ref=ref, force=force, walk_tree=walk_tree)
        return await push(repo, client, request)


@asynccontextmanager
async def upstream() -> AsyncIterator[tuple[Upstream, str]]:
    server = Upstream()
    async with serving(server) as running:
        yield server, url_of(running)


def url_of(running: Running) -> str:
    return f"http://127.0.0.1:{running.port}/api/v3"
