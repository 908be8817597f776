"""`p2p agent`: the service that follows, shares and deploys."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import click
import trio

from p2p.agent.config import AgentConfig, Follow
from p2p.agent.daemon import run_agent
from p2p.agent.remotes import remote_name
from p2p.cli.configured import config_option, read_config, system_option
from p2p.cli.local_api import ask
from p2p.cli.options import print_line
from p2p.cli.writer import open_configured_writer
from p2p.deploy.target import TreeTarget
from p2p.errors import Error
from p2p.net.target import Target, parse_target
from p2p.web.server.listen import parse_address

_log = logging.getLogger(__name__)


@click.command
@config_option
@system_option
@click.option("--repo", "repo_path", metavar="REPO", help="The repository.")
@click.option("--state", metavar="DIR", help="Where it keeps what it must remember.")
@click.option("--socket", metavar="PATH", help="Where commands reach it.")
@click.option(
    "--follow",
    "follows",
    nargs=2,
    metavar="URL REF",
    multiple=True,
    help="Follow this branch of this origin, and share it with neighbours.",
)
@click.option("--key", metavar="PUB", help="Whose signature commits of --follow need.")
@click.option("--tree", metavar="DIR", help="Deploy new commits below this directory.")
@click.option("--listen", metavar="HOST:PORT", help="For neighbours; port 0: any.")
@click.option(
    "--peer",
    "peers",
    metavar="HOST:PORT",
    multiple=True,
    help="A neighbour that need not be looked for.",
)
@click.option("--interface", "interfaces", metavar="NAME", multiple=True)
@click.option("--no-mdns", is_flag=True, help="Look for no neighbours.")
@click.option("--site", metavar="NAME", help="Name of the site.")
@click.option("--poll", type=click.FloatRange(1, 2592000), metavar="SECONDS")
@click.option("--writer", metavar="thread|process|SOCKET")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def agent(  # noqa: PLR0913 - one argument an option
    *,
    config_path: str | None,
    system: bool,
    repo_path: str | None,
    state: str | None,
    socket: str | None,
    follows: tuple[tuple[str, str], ...],
    key: str | None,
    tree: str | None,
    listen: str | None,
    peers: tuple[str, ...],
    interfaces: tuple[str, ...],
    no_mdns: bool,
    site: str | None,
    poll: float | None,
    writer: str | None,
    log_level: str,
) -> None:
    """Follow branches, share them with neighbours and deploy, until interrupted.

    Options count instead of what the configuration says; `--follow` adds to it.
    """
    if follows and key is None:
        raise click.UsageError("--follow needs --key: whose signature is demanded?")
    options = _Options(
        config_path=config_path,
        system=system,
        repo=repo_path and os.path.abspath(repo_path),
        state=state and os.path.abspath(state),
        socket=socket and os.path.abspath(socket),
        site=site,
        poll=poll,
        writer=writer,
        interfaces=interfaces,
        tree=tree and os.path.abspath(tree),
        mdns=not no_mdns,
        peers=tuple(map(parse_target, peers)),
        follows=tuple(_follow(*f, key, tree) for f in follows),
        listen=None if listen is None else parse_address(listen),
    )
    config = options.read()
    _log_to_stderr(log_level)
    share = config.share or bool(follows)
    trio.run(partial(_run, config, options.read, share=share))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The command line, which counts instead of what files say, or adds to it."""

    config_path: str | None
    system: bool
    repo: str | None
    state: str | None
    socket: str | None
    site: str | None
    poll: float | None
    writer: str | None
    interfaces: tuple[str, ...]
    tree: str | None
    mdns: bool
    peers: tuple[Target, ...]
    follows: tuple[Follow, ...]
    listen: tuple[str, int] | None

    def read(self) -> AgentConfig:
        """Return the files' configuration, as they are now, with these options."""
        config = read_config(self.config_path, system=self.system)
        given: dict[str, Any] = {
            "repo": self.repo,
            "state": self.state,
            "socket": self.socket,
            "site": self.site,
            "poll_seconds": self.poll,
            "writer": self.writer,
            "interfaces": self.interfaces,
            "deploy": self.tree and TreeTarget(self.tree),
        }
        given = {name: value for name, value in given.items() if value}
        config = replace(config, **given)
        config = replace(
            config,
            mdns=config.mdns and self.mdns,
            peers=config.peers + self.peers,
            follow=config.follow + self.follows,
        )
        if self.state and not self.socket:
            config = replace(config, socket=os.path.join(config.state, "agent.sock"))
        if self.listen is not None:
            host, port = self.listen
            config = replace(config, listen_host=host, listen_port=port)
        return config


def _follow(url: str, ref: str, key: str | None, tree: str | None) -> Follow:
    name = remote_name(url)
    return Follow(remote=name, ref=ref, url=url, key=key, deploy=tree is not None)


def _log_to_stderr(level: str) -> None:
    """Log lines as systemd's journal likes them: it knows the time itself."""
    form = "%(levelname)s %(message)s"
    if sys.stderr.isatty():
        form = f"%(asctime)s {form}"
    logging.basicConfig(level=level.upper(), format=form)


async def _run(
    config: AgentConfig, reread: Callable[[], AgentConfig], *, share: bool
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signals, nursery.cancel_scope)
        nursery.start_soon(_reload_on_signal, config)
        await run_agent(
            config,
            open_writer=open_configured_writer,
            share=share,
            ready=_say_ready,
            environment=os.environ,
            reread=reread,
        )


async def _reload_on_signal(config: AgentConfig) -> None:
    """Have the agent reload when it gets SIGHUP, as `p2p config reload` does."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            try:
                answer = await trio.to_thread.run_sync(ask, config, "/reload", {})
            except Error as error:
                _log.error("not reloaded: %s; %s", error, error.hint)
            else:
                names = ", ".join(answer.get("restart", ()))
                _log.info("reloaded%s", names and f"; needs a restart: {names}")


async def _end_on_signals(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


def _say_ready(socket: str) -> None:
    print_line(f"agent ready at {socket}")
