"""`p2p writer`: what systemd starts, as root, for each agent that connects.

It reads the configuration itself, so that the agent has no say in what is written and
where it is deployed to, makes the repository ready, and becomes `p2p.writer`.
"""

from __future__ import annotations

import os
import socket
import stat

import click

from p2p.agent.remotes import ensure_repository
from p2p.agent.writer_command import WRITER_COMMAND
from p2p.cli.configured import config_option, read_config
from p2p.errors import Error
from p2p.ostree.disk import disk_error
from p2p.ostree.messages import Failed, encode
from p2p.ostree.mounts import make_writable

_STDIN = 0


@click.command(hidden=True)
@config_option
def writer(*, config_path: str | None) -> None:
    """Write the configured repository for the agent at standard input, a socket."""
    if not stat.S_ISSOCK(os.fstat(_STDIN).st_mode):
        raise click.UsageError(
            "standard input is no socket: ostree-p2p-writer.socket starts this"
        )
    try:
        arguments = _prepare(config_path)
    except OSError as error:
        _refuse(disk_error("this system", error))
        raise
    except Error as error:
        _refuse(error)
        raise
    os.execv(WRITER_COMMAND[0], [*WRITER_COMMAND, *arguments])  # noqa: S606 - no shell


def _prepare(config_path: str | None) -> list[str]:
    """Make the repository ready; return what the writer is to be told."""
    config = read_config(config_path)
    make_writable(config.repo)
    repo = ensure_repository(config)
    options = () if config.deploy is None else config.deploy.options()
    return [repo.path, str(_STDIN), *options]


def _refuse(error: Error) -> None:
    """Tell the agent instead of greeting it why there is no writer."""
    with socket.socket(fileno=os.dup(_STDIN)) as connection:
        connection.sendall(b"".join(encode(Failed.of(error))))
