"""Opens the writer of a repository: on a thread, in a process, or at a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from p2p.agent.config import AgentConfig
from p2p.agent.remotes import ensure_repository
from p2p.agent.writing import (
    ThreadWriter,
    Writer,
    connect_writer,
    open_lasting_writer,
    open_process_writer,
)
from p2p.deploy.target import Target, open_updater
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
        how: `thread` or `process`.
        settings: keys of `[core]` that count instead of the repository's own.
        target: where commits are deployed to.

    Raises:
        Error: what keeps it from being opened.

    """
    if how == "thread":
        updater = None if target is None else open_updater(repo, target)
        with WriterService(repo, updater) as service:
            yield ThreadWriter(service.handle)
    else:
        start = partial(open_process_writer, repo.path, settings, target=target)
        async with open_lasting_writer(start) as writer:
            yield writer


def open_configured_writer(config: AgentConfig) -> AbstractAsyncContextManager[Writer]:
    """Return the writer that a configuration says, to be opened.

    One at a socket was told by others which repository it writes and where it deploys
    to, and made that repository ready itself; for the others this is done here.

    Raises:
        ConfigError, RepositoryError: the repository cannot be made ready.

    """
    if config.writer not in ("thread", "process"):
        return open_lasting_writer(partial(connect_writer, config.writer))
    repo = ensure_repository(config)
    return open_writer(repo, config.writer, target=config.deploy)
