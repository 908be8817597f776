"""Opens the writer of a repository: on a thread, in a process, or at a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from p2p.agent.writing import ThreadWriter, Writer, connect_writer, open_process_writer
from p2p.deploy.target import Target, open_deployer
from p2p.ostree.repo import Repo
from p2p.writer.service import WriterService


@asynccontextmanager
async def open_writer(
    repo: Repo,
    how: str,
    *,
    settings: Mapping[str, str] | None = None,
    target: Target | None = None,
) -> AsyncIterator[Writer]:
    """Open a writer for the time of the block.

    Args:
        repo: the repository; on a thread it is written with these very settings.
        how: `thread`, `process`, or the path of the socket of a writer that runs. That
            one was told by others which repository it writes and where it deploys to.
        settings: keys of `[core]` that count instead of the repository's own.
        target: where commits are deployed to.

    Raises:
        Error: what keeps it from being opened.

    """
    if how == "thread":
        deployer = None if target is None else open_deployer(repo, target)
        with WriterService(repo, deployer) as service:
            yield ThreadWriter(service.handle)
    elif how == "process":
        async with open_process_writer(repo.path, settings, target=target) as writer:
            yield writer
    else:
        async with connect_writer(how) as writer:
            yield writer
