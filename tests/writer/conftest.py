"""Both forms of the writer, behind the agent's end of each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2p.agent.writing import ThreadWriter, Writer, open_process_writer
from p2p.ostree.config import RepoMode
from p2p.ostree.repo import Repo
from p2p.writer.service import WriterService
from tests.ostree.samples import make_repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER)


@pytest.fixture
def archive(tmp_path: Path) -> Repo:
    return make_repo(str(tmp_path / "archive"), RepoMode.ARCHIVE)


@pytest.fixture(params=["thread", "process"])
async def writer(request: pytest.FixtureRequest, repo: Repo) -> AsyncIterator[Writer]:
    """A writer of `repo`; every test with it runs on both forms."""
    if request.param == "process":
        async with open_process_writer(repo.path) as process:
            yield process
        return
    with WriterService(Repo.open(repo.path)) as service:
        yield ThreadWriter(service.handle)
