"""All forms of the writer, behind the agent's end of each."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from p2p.agent.writing import (
    ThreadWriter,
    Writer,
    connect_writer,
    open_process_writer,
)
from p2p.deploy.target import Target, open_updater
from p2p.ostree.config import RepoMode
from p2p.ostree.repo import Repo
from p2p.writer.service import WriterService
from tests.ostree.samples import make_repo
from tests.writer.activation import activating, here

FORMS = ["thread", "process", "socket"]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER)


@pytest.fixture
def archive(tmp_path: Path) -> Repo:
    return make_repo(str(tmp_path / "archive"), RepoMode.ARCHIVE)


@asynccontextmanager
async def opened(
    form: str, repo: Repo, target: Target | None = None
) -> AsyncIterator[Writer]:
    """A writer in one of its forms."""
    async with AsyncExitStack() as stack:
        if form == "process":
            process = open_process_writer(repo.path, target=target)
            yield await stack.enter_async_context(process)
        elif form == "socket":
            place = Path(repo.path).parent / "writer.sock"
            stack.enter_context(activating(place, here(repo.path, target)))
            yield await stack.enter_async_context(connect_writer(str(place)))
        else:
            again = Repo.open(repo.path)
            updater = open_updater(again, target) if target is not None else None
            service = stack.enter_context(WriterService(again, updater))
            yield ThreadWriter(service.handle)


@pytest.fixture(params=FORMS)
async def writer(request: pytest.FixtureRequest, repo: Repo) -> AsyncIterator[Writer]:
    """A writer of `repo`; every test with it runs on all forms."""
    async with opened(request.param, repo) as writer:
        yield writer
