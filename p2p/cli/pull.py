"""`p2p pull`: the conventions, and the meaning of the options, of `ostree pull`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import trio

from p2p.agent.company import Company
from p2p.agent.pull import Pull, PulledRef, PullRequest, PullStatus
from p2p.agent.writing import ThreadWriter, Writer, open_process_writer
from p2p.cli import progress
from p2p.cli.company import MeetingOptions, open_meeting, parse_target
from p2p.cli.options import json_option, print_json, refuse, repo_option
from p2p.errors import ConfigError
from p2p.net.transport import Target
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum, parse_checksum
from p2p.ostree.repo import Repo
from p2p.trust.verify import Verifier
from p2p.web.credentials import Credentials, load_credentials
from p2p.web.fetch import Fetcher
from p2p.web.origin import NO_CREDENTIALS, Origin
from p2p.writer.service import WriterService


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The command line, checked."""

    repo: Repo
    remote: str
    refs: tuple[tuple[str, Checksum | None], ...]
    request: PullRequest
    url: str | None
    headers: tuple[tuple[str, str], ...]
    credentials: Path | None
    writer: str
    peers: tuple[Target, ...]
    no_origin: bool
    no_share: bool
    share_for: float


@click.command
@repo_option
@click.argument("remote")
@click.argument("refs", nargs=-1, metavar="[REF[@COMMIT]]…")
@click.option("--mirror", is_flag=True, help="Set refs/heads/REF, as a mirror has it.")
@click.option("--depth", default=0, metavar="N", help="Ancestors to pull; -1: all.")
@click.option("--commit-metadata-only", is_flag=True, help="Only commits, no content.")
@click.option(
    "-T",
    "--timestamp-check",
    is_flag=True,
    help="Refuse an older commit also where COMMIT is given.",
)
@click.option("--timestamp-check-from-rev", metavar="REV", help="… older than REV.")
@click.option("--disable-fsync", is_flag=True, help="Do not wait for the disk.")
@click.option("--url", metavar="URL", help="Pull from here instead.")
@click.option("--http-header", metavar="NAME=VALUE", multiple=True)
@click.option(
    "--credentials",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="treehub.json or credentials.zip of the origin.",
)
@click.option(
    "--writer",
    type=click.Choice(["auto", "thread", "process"]),
    default="auto",
    help="Where the repository is written from.",
)
@click.option(
    "--peer",
    "peers",
    metavar="HOST:PORT",
    multiple=True,
    help="Draw on this neighbour too.",
)
@click.option("--no-origin", is_flag=True, help="Draw on neighbours only.")
@click.option("--no-share", is_flag=True, help="Give neighbours nothing.")
@click.option(
    "--share-for",
    default=0.0,
    metavar="SECONDS",
    help="Go on sharing that long after the pull.",
)
@click.option("--untrusted", is_flag=True, hidden=True)  # everything always is
@click.option("--disable-static-deltas", is_flag=True, hidden=True)  # never used
@refuse("--require-static-deltas", reason="static deltas are not used here")
@refuse("--http-trusted", reason="every object is verified, whatever brought it")
@refuse("--disable-verify-bindings", reason="bindings are always verified")
@refuse("--subpath", reason="a partial tree cannot be deployed or shared")
@refuse("--dry-run", reason="it shows sizes of static deltas, which are not used here")
@refuse("--cache-dir", reason="nothing is cached outside the repository")
@json_option
def pull(  # noqa: PLR0913
    *,
    repo_path: str,
    remote: str,
    refs: tuple[str, ...],
    mirror: bool,
    depth: int,
    commit_metadata_only: bool,
    timestamp_check: bool,
    timestamp_check_from_rev: str | None,
    disable_fsync: bool,
    url: str | None,
    http_header: tuple[str, ...],
    credentials: Path | None,
    writer: str,
    peers: tuple[str, ...],
    no_origin: bool,
    no_share: bool,
    share_for: float,
    untrusted: bool,  # noqa: ARG001
    disable_static_deltas: bool,  # noqa: ARG001
    as_json: bool,
) -> None:
    """Pull REFs of REMOTE into the repository.

    Signatures, bindings and age are checked before any content is fetched. Nothing is
    visible before everything is there, and an interrupted pull goes on where it was.
    """
    repo = Repo.open(repo_path)
    if no_share and share_for:
        raise click.UsageError("--no-share contradicts --share-for")
    if no_origin and not peers:
        raise click.UsageError("--no-origin needs a --peer")
    if depth < -1:
        raise click.BadParameter("is -1 or more", param_hint="--depth")
    options = _Options(
        repo=repo,
        remote=remote,
        refs=_parse_refs(refs),
        request=PullRequest(
            refs=(),
            mirror=mirror,
            depth=depth,
            metadata_only=commit_metadata_only,
            allow_older=any("@" in ref for ref in refs) and not timestamp_check,
            newer_than=(
                repo.resolve(timestamp_check_from_rev)
                if timestamp_check_from_rev
                else None
            ),
            fsync=not disable_fsync,
        ),
        url=url,
        headers=tuple(_parse_header(header) for header in http_header),
        credentials=credentials,
        writer=writer,
        peers=tuple(map(parse_target, peers)),
        no_origin=no_origin,
        no_share=no_share,
        share_for=share_for,
    )
    started = time.monotonic()
    status, pulled = trio.run(_pull, options)
    seconds = time.monotonic() - started
    if as_json:
        print_json(_record(status, pulled, seconds))
        return
    progress.summarise(status, seconds)
    for result in pulled:
        change = "unchanged" if result.commit == result.previous else "updated"
        click.echo(f"{remote}:{result.ref} {result.commit} {change}")


async def _pull(options: _Options) -> tuple[PullStatus, tuple[PulledRef, ...]]:
    """Put the parts together and run them; the progress is drawn beside."""
    repo = options.repo
    remote = repo.remote(options.remote)
    if options.url is not None:
        remote = replace(remote, url=options.url, content_url=None)
    refs = options.refs or tuple((branch, None) for branch in remote.branches)
    verifier = Verifier.for_remote(remote, directories=[Path(repo.path)])
    credentials = (
        load_credentials(options.credentials) if options.credentials else NO_CREDENTIALS
    )
    async with Fetcher() as fetcher, _open_writer(options) as writer:
        origin = Origin(
            fetcher, remote, credentials=credentials, headers=options.headers
        )
        if not refs:
            if not options.request.mirror:
                raise ConfigError(
                    f"remote {remote.name!r}",
                    "names no branches to pull",
                    hint="Name the refs to pull, or set `branches` of the remote.",
                )
            refs = tuple((ref, None) for ref in sorted(await origin.list_refs()))
        async with _open_company(options, credentials) as company:
            pull = Pull(
                repo=repo,
                origin=None if options.no_origin else origin,
                writer=writer,
                verifier=verifier,
                remote=remote,
                request=replace(options.request, refs=refs),
                now=time.time,
                company=company,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(progress.show, pull.status)
                pulled = await pull.run()
                nursery.cancel_scope.cancel()
            await trio.sleep(options.share_for)
    return pull.status, pulled


@asynccontextmanager
async def _open_company(
    options: _Options, credentials: Credentials
) -> AsyncIterator[Company | None]:
    """Meet the neighbours that were named, if any were."""
    if not (options.peers or options.share_for):
        yield None
        return
    # What needs credentials is given to nobody whom this device cannot tell apart.
    share = not (options.no_share or credentials.needed)
    meeting_options = MeetingOptions(peers=options.peers, share=share)
    holdings = Holdings.of(options.repo)
    async with open_meeting(options.repo, holdings, meeting_options) as meeting:
        yield meeting.company


@asynccontextmanager
async def _open_writer(options: _Options) -> AsyncIterator[Writer]:
    """Open the repository for writing, in a process of its own unless told."""
    if options.writer == "process":
        async with open_process_writer(options.repo.path) as writer:
            yield writer
        return
    with WriterService(options.repo) as service:
        yield ThreadWriter(service.handle)


def _parse_header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


def _parse_refs(refs: tuple[str, ...]) -> tuple[tuple[str, Checksum | None], ...]:
    parsed = []
    for text in refs:
        ref, at, commit = text.partition("@")
        parsed.append((ref, parse_checksum(commit) if at else None))
    return tuple(parsed)


def _record(
    status: PullStatus, pulled: tuple[PulledRef, ...], seconds: float
) -> dict[str, object]:
    return {
        "commit": pulled[0].commit,
        "refs": [asdict(result) for result in pulled],
        "origin": asdict(status.origin),
        "peers": asdict(status.peers),
        "local": asdict(status.local),
        "seconds": round(seconds, 3),
    }
