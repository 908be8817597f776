"""`p2p serve`: share what a repository holds, in the foreground."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import click
import trio

from p2p.agent.meeting import DEVICE_PATH, MeetingOptions, open_meeting, share_refs
from p2p.cli.configured import (
    choose_interfaces,
    config_option,
    mdns_options,
    read_config,
)
from p2p.cli.options import repo_option
from p2p.net.target import parse_target
from p2p.ostree.holdings import Holdings
from p2p.ostree.repo import Repo
from p2p.trust.clock import clock_floor
from p2p.web.server.listen import parse_address


@click.command
@repo_option
@config_option
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where neighbours reach it; port 0: any. Else 28727, or any if it is taken.",
)
@click.option("--peer", "peers", metavar="HOST:PORT", multiple=True)
@mdns_options
@click.option("--site", metavar="NAME", help="Name of the site.")
def serve(
    *,
    repo_path: str,
    config_path: str | None,
    listen: str | None,
    peers: tuple[str, ...],
    interfaces: tuple[str, ...],
    no_mdns: bool,
    site: str | None,
) -> None:
    """Share the commits that the repository's refs name, until interrupted."""
    repo = Repo.open(repo_path)
    config = read_config(config_path)
    options = replace(
        MeetingOptions.of(config),
        state=os.path.join(repo.path, DEVICE_PATH),
        any_port=True,
        peers=config.peers + tuple(map(parse_target, peers)),
        mdns=config.mdns and not no_mdns,
        clock_floor=clock_floor(repo),
        choice=choose_interfaces(config, interfaces),
        site=config.site if site is None else site,
    )
    if listen is not None:
        host, port = parse_address(listen)
        options = replace(options, host=host or None, port=port, any_port=False)
    trio.run(_serve, repo, options)


async def _serve(repo: Repo, options: MeetingOptions) -> None:
    holdings = Holdings.published(repo)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_meeting(holdings, options) as meeting:
            problems = await share_refs(meeting.sharing, repo)
            for problem in problems:
                click.echo(f"not shared: {problem}", err=True)
            if options.port and meeting.port != options.port:
                click.echo(f"port {options.port} is taken", err=True)
            click.echo(f"sharing {repo.path} on port {meeting.port}")
            async for _ in signals:
                break
