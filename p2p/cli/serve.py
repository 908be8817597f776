"""`p2p serve`: share what a repository holds, in the foreground."""

from __future__ import annotations

import signal

import click
import trio

from p2p.cli.company import MeetingOptions, open_meeting, parse_target, share_refs
from p2p.cli.options import repo_option
from p2p.ostree.holdings import Holdings
from p2p.ostree.repo import Repo
from p2p.web.listen import parse_address


@click.command
@repo_option
@click.option("--listen", default=":0", metavar="HOST:PORT", help="Port 0: any.")
@click.option("--peer", "peers", metavar="HOST:PORT", multiple=True)
@click.option("--site", default="", help="Name of the site.")
def serve(*, repo_path: str, listen: str, peers: tuple[str, ...], site: str) -> None:
    """Share the commits that the repository's refs name, until interrupted."""
    host, port = parse_address(listen)
    options = MeetingOptions(
        site=site,
        host=host or None,
        port=port,
        peers=tuple(map(parse_target, peers)),
    )
    trio.run(_serve, Repo.open(repo_path), options)


async def _serve(repo: Repo, options: MeetingOptions) -> None:
    holdings = Holdings.published(repo)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_meeting(repo, holdings, options) as meeting:
            problems = await trio.to_thread.run_sync(share_refs, meeting.sharing, repo)
            for problem in problems:
                click.echo(f"not shared: {problem}", err=True)
            click.echo(f"sharing {repo.path} on port {meeting.port}")
            async for _ in signals:
                break
