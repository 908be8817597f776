"""`p2p pull`: the conventions, and the meaning of the options, of `ostree pull`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import trio

from p2p.agent.company import Company
from p2p.agent.meeting import DEVICE_PATH, MeetingOptions, open_meeting
from p2p.agent.pull import Pull, PullStatus
from p2p.agent.request import PulledRef, PullRequest, Wanted
from p2p.cli import progress
from p2p.cli.configured import (
    choose_interfaces,
    config_option,
    mdns_options,
    read_config,
)
from p2p.cli.options import (
    json_option,
    parse_headers,
    print_json,
    print_line,
    refuse,
    repo_option,
)
from p2p.cli.writer import open_writer
from p2p.errors import ConfigError
from p2p.net.target import parse_target
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import parse_checksum
from p2p.ostree.repo import Repo
from p2p.trust.clock import clock_floor
from p2p.trust.verify import Verifier
from p2p.web.client.credentials import load_credentials
from p2p.web.client.fetch import Fetcher
from p2p.web.client.options import is_protected
from p2p.web.client.origin import NO_CREDENTIALS, Origin
from p2p.web.client.retry import Retry

# Neighbours come up within a second or two where everybody is awake.
_SETTLE_SECONDS = 3.0
# Without an origin there is nobody else to ask.
_ALONE_SETTLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The command line, checked.

    Attributes:
        settings: keys of `[core]` for this pull alone.

    """

    repo: Repo
    remote: str
    request: PullRequest
    settings: Mapping[str, str]
    url: str | None
    headers: tuple[tuple[str, str], ...]
    retries: int
    credentials: Path | None
    writer: str
    meeting: MeetingOptions
    no_origin: bool
    no_share: bool
    share_for: float
    share_protected: bool


@click.command
@repo_option
@config_option
@click.argument("remote")
@click.argument("refs", nargs=-1, metavar="[REF[@COMMIT]|COMMIT]…")
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
@click.option("--per-object-fsync", is_flag=True, help="Wait for it file by file.")
@click.option("--url", metavar="URL", help="Pull from here instead.")
@click.option("--http-header", metavar="NAME=VALUE", multiple=True)
@click.option(
    "--network-retries",
    metavar="N",
    type=click.IntRange(0, 1000),
    default=5,
    show_default=True,
    help="How often each request is tried again.",
)
@click.option(
    "-L",
    "--localcache-repo",
    metavar="REPO",
    multiple=True,
    help="Take objects from this repository too.",
)
@click.option(
    "--credentials",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="treehub.json or credentials.zip of the origin.",
)
@click.option(
    "--writer",
    type=click.Choice(["thread", "process"]),
    default="thread",
    show_default=True,
    help="Where the repository is written from.",
)
@click.option(
    "--peer",
    "peers",
    metavar="HOST:PORT",
    multiple=True,
    help="Draw on this neighbour too.",
)
@mdns_options
@click.option("--no-origin", is_flag=True, help="Draw on neighbours only.")
@click.option("--no-share", is_flag=True, help="Give neighbours nothing.")
@click.option(
    "--share-for",
    default=0.0,
    metavar="SECONDS",
    help="Go on sharing that long after the pull.",
)
# Everything always is untrusted, and no deltas are used.
@click.option("--untrusted", is_flag=True, hidden=True, expose_value=False)
@click.option("--disable-static-deltas", is_flag=True, hidden=True, expose_value=False)
@refuse("--require-static-deltas", reason="static deltas are not used here")
@refuse("--http-trusted", reason="every object is verified, whatever brought it")
@refuse("--disable-verify-bindings", reason="bindings are always verified")
@refuse("--subpath", reason="a partial tree cannot be deployed or shared")
@refuse("--dry-run", reason="it shows sizes of static deltas, which are not used here")
@refuse("--cache-dir", reason="nothing is cached outside the repository")
@refuse(
    "--bareuseronly-files",
    reason="a repository of mode bare-user-only takes no other files",
)
@refuse("--disable-retry-on-network-errors", reason="give --network-retries=0")
@refuse(
    *("--low-speed-limit-bytes", "--low-speed-time-seconds"),
    reason="a source that stalls is noticed and left in any case",
)
@refuse(
    "--max-outstanding-fetcher-requests",
    reason="how many requests run at once is found by itself",
)
@refuse("--update-frequency", reason="the display has its own rhythm; see --json")
@json_option
def pull(  # noqa: PLR0913 - one argument an option
    *,
    repo_path: str,
    config_path: str | None,
    remote: str,
    refs: tuple[str, ...],
    mirror: bool,
    depth: int,
    commit_metadata_only: bool,
    timestamp_check: bool,
    timestamp_check_from_rev: str | None,
    disable_fsync: bool,
    per_object_fsync: bool,
    url: str | None,
    http_header: tuple[str, ...],
    network_retries: int,
    localcache_repo: tuple[str, ...],
    credentials: Path | None,
    writer: str,
    peers: tuple[str, ...],
    interfaces: tuple[str, ...],
    no_mdns: bool,
    no_origin: bool,
    no_share: bool,
    share_for: float,
    as_json: bool,
) -> None:
    """Pull REFs of REMOTE into the repository; REMOTE:REF names both.

    Signatures, bindings and age are checked before any content is fetched. Nothing is
    visible before everything is there, and an interrupted pull goes on where it was.
    """
    if depth < -1:
        raise click.BadParameter("is -1 or more", param_hint="--depth")
    remote, refs = _split_refspec(remote, refs)
    if no_share and share_for:
        raise click.UsageError("--no-share contradicts --share-for")
    if no_origin and no_mdns and not peers:
        raise click.UsageError("--no-origin with --no-mdns needs a --peer")
    settings = {}
    if disable_fsync:
        settings["fsync"] = "false"
    if per_object_fsync:
        settings["per-object-fsync"] = "true"
    repo = Repo.open(repo_path, settings)
    newer_than = timestamp_check_from_rev
    config = read_config(config_path)
    meeting = replace(
        MeetingOptions.of(config),
        state=os.path.join(repo.path, DEVICE_PATH),
        # The well-known port is an agent's, which may run beside.
        port=0,
        peers=config.peers + tuple(map(parse_target, peers)),
        mdns=config.mdns and not no_mdns,
        clock_floor=clock_floor(repo),
        choice=choose_interfaces(config, interfaces),
        settle_seconds=_ALONE_SETTLE_SECONDS if no_origin else _SETTLE_SECONDS,
    )
    options = _Options(
        repo=repo,
        remote=remote,
        request=PullRequest(
            wanted=tuple(map(_parse_wanted, refs)),
            mirror=mirror,
            depth=depth,
            metadata_only=commit_metadata_only,
            timestamp_check=timestamp_check,
            newer_than=repo.resolve(newer_than) if newer_than else None,
            fsync=not disable_fsync,
            caches=tuple(map(Repo.open, localcache_repo)),
        ),
        settings=settings,
        url=url,
        headers=parse_headers(http_header),
        retries=network_retries,
        credentials=credentials,
        writer=writer,
        meeting=meeting,
        no_origin=no_origin,
        no_share=no_share,
        share_for=share_for,
        share_protected=config.fleet is not None or config.share_protected,
    )
    started = time.monotonic()

    def tell(status: PullStatus, pulled: tuple[PulledRef, ...]) -> None:
        seconds = time.monotonic() - started
        if as_json:
            print_json(_record(status, pulled, seconds))
            return
        progress.summarise(status, seconds)
        for result in pulled:
            print_line(_describe(result, remote, mirror=mirror))

    trio.run(_pull, options, tell)


def _split_refspec(remote: str, refs: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return a remote and its refs, also where they came as REMOTE:REF."""
    name, colon, ref = remote.partition(":")
    if not colon:
        return remote, refs
    if refs:
        raise click.UsageError(f"{remote} names a ref; no others may follow")
    return name, (ref,)


def _parse_wanted(text: str) -> Wanted:
    ref, at, commit = text.rpartition("@")
    if at:
        return Wanted(ref, parse_checksum(commit))
    if len(text) == 64 and not text.strip("0123456789abcdef"):
        return Wanted(None, parse_checksum(text))
    return Wanted(text)


async def _pull(
    options: _Options, tell: Callable[[PullStatus, tuple[PulledRef, ...]], None]
) -> None:
    """Put the parts together and run them; the progress is drawn beside."""
    repo = options.repo
    remote = repo.remote(options.remote)
    if options.url is not None:
        remote = replace(remote, url=options.url, content_url=None)
    request = options.request
    if not request.wanted:
        wanted = tuple(Wanted(branch) for branch in remote.branches)
        request = replace(request, wanted=wanted)
    if not (request.wanted or request.mirror):
        raise ConfigError(
            f"remote {remote.name!r}",
            "names no branches to pull",
            hint="Name the refs to pull, or set `branches` of the remote.",
        )
    verifier = Verifier.for_remote(remote, directories=[Path(repo.path)])
    credentials = NO_CREDENTIALS
    if options.credentials is not None:
        credentials = load_credentials(options.credentials)
    async with (
        Fetcher() as fetcher,
        open_writer(repo, options.writer, settings=options.settings) as writer,
    ):
        limits = options.meeting.limits
        fetcher.limit(limits.origin, limits.dscp)
        origin = Origin(
            fetcher,
            remote,
            credentials=credentials,
            headers=options.headers,
            retry=Retry(tries=options.retries + 1),
        )
        protected = is_protected(remote, credentials, options.headers)
        async with _open_company(options, protected=protected) as company:
            pull = Pull(
                repo=repo,
                origin=None if options.no_origin else origin,
                writer=writer,
                verifier=verifier,
                remote=remote,
                request=request,
                now=time.time,
                company=company,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(progress.show, pull.status)
                pulled = await pull.run()
                nursery.cancel_scope.cancel()
            tell(pull.status, pulled)
            if options.share_for:
                await pull.share()
                await _share_for(options.share_for)


async def _share_for(seconds: float) -> None:
    """Go on so long, or until interrupted; neighbours are given what they ask for."""
    click.echo(f"sharing for {seconds:g} s more; Ctrl-C ends it", err=True)
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.move_on_after(seconds),
    ):
        await anext(aiter(signals))


@asynccontextmanager
async def _open_company(
    options: _Options, *, protected: bool
) -> AsyncIterator[Company | None]:
    """Meet neighbours, unless none are wanted."""
    meeting = options.meeting
    if not (meeting.peers or meeting.mdns or options.share_for):
        yield None
        return
    # What needs credentials is given to nobody whom this device cannot tell apart.
    secret = protected and not options.share_protected
    meeting = replace(meeting, share=not (options.no_share or secret))
    holdings = Holdings.of(options.repo)
    async with open_meeting(holdings, meeting) as met:
        yield met.company


def _describe(result: PulledRef, remote: str, *, mirror: bool) -> str:
    """Return a line of the result: what was pulled, its commit, and the change."""
    if result.ref is None:
        return result.commit
    name = result.ref if mirror else f"{remote}:{result.ref}"
    change = "unchanged" if result.commit == result.previous else "updated"
    return f"{name} {result.commit} {change}"


def _record(
    status: PullStatus, pulled: tuple[PulledRef, ...], seconds: float
) -> dict[str, object]:
    """Return the result as docs/commands.md describes it."""
    return {
        "commit": pulled[0].commit if pulled else None,
        "refs": [asdict(result) for result in pulled],
        "origin": asdict(status.origin),
        "peers": asdict(status.peers),
        "local": asdict(status.local),
        "seconds": round(seconds, 3),
    }
