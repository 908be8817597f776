"""`p2p push`: a branch of a local repository into TreeHub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import trio

from p2p.cli.options import format_bytes, json_option, print_json, repo_option
from p2p.cli.progress import show_push
from p2p.errors import ConfigError
from p2p.ostree.repo import Repo
from p2p.web.client.credentials import load_credentials
from p2p.web.client.fetch import Fetcher
from p2p.web.client.request import DEFAULT_ACCESS, Access, Headers
from p2p.web.treehub.client import DEFAULT_JOBS, PUSH_LIMITS, TreeHubClient
from p2p.web.treehub.push import Push, PushRequest, PushResult


@click.command
@repo_option
@click.option("-r", "--ref", required=True, metavar="REF|COMMIT", help="What to push.")
@click.option("--origin", metavar="URL", help="TreeHub, such as https://host/api/v3.")
@click.option(
    "-j",
    "--credentials",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="treehub.json or credentials.zip; it may name the URL.",
)
@click.option("-f", "--force", is_flag=True, help="Set the ref wherever it is now.")
@click.option("-w", "--walk-tree", is_flag=True, help="Ask about every object.")
@click.option(
    "--jobs", default=DEFAULT_JOBS, show_default=True, help="Requests at once."
)
@click.option("--http-header", metavar="NAME=VALUE", multiple=True)
@click.option("--cacert", metavar="PEM", type=click.Path(exists=True, dir_okay=False))
@json_option
def push(  # noqa: PLR0913 - one argument an option
    *,
    repo_path: str,
    ref: str,
    origin: str | None,
    credentials: Path | None,
    force: bool,
    walk_tree: bool,
    jobs: int,
    http_header: tuple[str, ...],
    cacert: str | None,
    as_json: bool,
) -> None:
    """Send REF's commit and all it needs, children first, then set the ref there.

    What the origin has already is not sent again, so an interrupted push goes on where
    it was. Signatures that were made after an earlier push are sent too.
    """
    headers = []
    for header in http_header:
        name, equals, value = header.partition("=")
        if not equals:
            raise click.BadParameter(f"{header!r} is not NAME=VALUE")
        headers.append((name, value))
    result = trio.run(
        _push,
        Repo.open(repo_path),
        PushRequest(ref=ref, force=force, walk_tree=walk_tree),
        origin,
        credentials,
        tuple(headers),
        Access(ca_path=cacert) if cacert else DEFAULT_ACCESS,
        jobs,
    )
    if as_json:
        print_json(asdict(result))
    else:
        _print(result)


def push_ref(repo: Repo, ref: str, destination: str) -> None:
    """Push a branch to a URL, or where a credentials file says."""
    file = None if "://" in destination else Path(destination)
    url = destination if file is None else None
    request = PushRequest(ref=ref)
    result = trio.run(_push, repo, request, url, file, (), DEFAULT_ACCESS, DEFAULT_JOBS)
    _print(result)


async def _push(
    repo: Repo,
    request: PushRequest,
    url: str | None,
    credentials_file: Path | None,
    headers: Headers,
    access: Access,
    jobs: int,
) -> PushResult:
    credentials = load_credentials(credentials_file) if credentials_file else None
    if url is None and credentials is not None:
        url = credentials.url
    if url is None:
        raise ConfigError(
            "push",
            "no origin was named",
            hint="Give --origin=URL, or --credentials=FILE that names one.",
        )
    async with Fetcher(PUSH_LIMITS) as fetcher, trio.open_nursery() as nursery:
        client = TreeHubClient(
            fetcher,
            url,
            credentials=credentials,
            headers=headers,
            access=access,
            jobs=jobs,
        )
        running = Push(repo=repo, client=client, request=request)
        nursery.start_soon(show_push, running.status)
        result = await running.run()
        nursery.cancel_scope.cancel()
    return result


def _print(result: PushResult) -> None:
    click.echo(
        f"{result.sent_objects} objects, {format_bytes(result.sent_bytes)} sent, "
        f"{result.present_objects} were there · {result.seconds:.1f} s",
        err=True,
    )
    if result.ref is not None:
        click.echo(f"{result.ref} {result.commit}", err=True)
