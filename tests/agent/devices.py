"""Devices of a site in one process: real TLS over loopback, real repositories."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from p2p.agent.meeting import Meeting, MeetingOptions, open_meeting, share_refs
from p2p.agent.pull import Pull, PullStatus
from p2p.agent.request import PulledRef, PullRequest, Wanted
from p2p.agent.writing import ThreadWriter
from p2p.net.target import Target
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum, Metadata, parse_metadata
from p2p.ostree.repo import Repo
from p2p.trust.keys import generate_key_pair, load_secret_key
from p2p.trust.sign import add_signature, sign_commit
from p2p.trust.verify import Verifier
from p2p.web.client.fetch import Fetcher
from p2p.web.client.origin import Origin
from p2p.writer.service import WriterService

REF = "os"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Makes signed commits in an archive repository."""

    repo: Repo
    keys: Path

    @classmethod
    def create(cls, directory: Path) -> "Publisher":
        generate_key_pair(directory / "keys")
        return cls(
            Repo.init(directory / "origin", RepoMode.ARCHIVE), directory / "keys"
        )

    def sign(self, data: bytes) -> Metadata:
        key = load_secret_key(self.keys / "signing.key")
        return parse_metadata(add_signature(None, sign_commit(data, key)))

    def commit(self, tree: Path, *, timestamp: int | None = None) -> Checksum:
        options = CommitOptions(branch=REF, timestamp=timestamp, sign=self.sign)
        return commit_tree(self.repo, tree, options)

    def device(self, path: Path, url: str, mode: RepoMode = RepoMode.BARE_USER) -> Repo:
        """Return a repository that trusts this publisher."""
        repo = Repo.init(path, mode)
        group = 'remote "up"'
        repo.keys.set(group, "url", url)
        repo.keys.set(group, "gpg-verify", "false")
        repo.keys.set(group, "sign-verify", "ed25519")
        repo.keys.set(group, "verification-ed25519-file", f"{self.keys}/signing.pub")
        repo.save_config()
        return repo


@asynccontextmanager
async def sharing(
    repo: Repo, *, holdings: Holdings | None = None, compress: bool = True
) -> AsyncIterator[Meeting]:
    """Share everything that a repository's refs name."""
    holdings = holdings or Holdings.published(repo)
    async with open_meeting(
        holdings,
        MeetingOptions(
            state=f"{repo.path}/extensions/p2p/device",
            host="127.0.0.1",
            compress=compress,
        ),
    ) as meeting:
        assert await share_refs(meeting.sharing, repo) == []
        yield meeting


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull did."""

    refs: tuple[PulledRef, ...]
    status: PullStatus
    meeting: Meeting


@dataclass(frozen=True, slots=True)
class Puller:
    """A device that is about to pull, with its neighbours."""

    meeting: Meeting
    task: Pull

    async def run(self, seconds: float = 60) -> Pulled:
        with trio.fail_after(seconds):
            refs = await self.task.run()
            await self.task.share()
        return Pulled(refs, self.task.status, self.meeting)


async def pull(
    repo: Repo,
    *,
    peers: tuple[int, ...] = (),
    origin: bool = True,
    request: PullRequest | None = None,
    share: bool = True,
    neighbours: int | None = None,
) -> Pulled:
    """Pull from neighbours on these ports of loopback and from the remote's URL."""
    expected = len(peers) if neighbours is None else neighbours
    try:
        async with puller(
            repo, peers=peers, origin=origin, request=request, share=share
        ) as device:
            await _meet(device.meeting, expected)
            return await device.run()
    except ExceptionGroup as group:
        raise _only(group) from group


@asynccontextmanager
async def puller(
    repo: Repo,
    *,
    peers: tuple[int, ...] = (),
    origin: bool = True,
    request: PullRequest | None = None,
    share: bool = True,
    verifier: Verifier | None = None,
) -> AsyncIterator[Puller]:
    """Meet neighbours on these ports of loopback, ready to pull."""
    remote = repo.remote("up")
    verifier = verifier or Verifier.for_remote(remote, directories=[])
    targets = tuple(Target("127.0.0.1", port) for port in peers)
    options = MeetingOptions(
        state=f"{repo.path}/extensions/p2p/device",
        host="127.0.0.1",
        peers=targets,
        share=share,
    )
    with WriterService(repo) as service:
        async with (
            Fetcher() as fetcher,
            open_meeting(Holdings.of(repo), options) as meeting,
        ):
            yield Puller(
                meeting,
                Pull(
                    repo=repo,
                    origin=Origin(fetcher, remote) if origin else None,
                    writer=ThreadWriter(service.handle),
                    verifier=verifier,
                    remote=remote,
                    request=request or PullRequest(wanted=(Wanted(REF),)),
                    now=time.time,
                    company=meeting.company,
                ),
            )


async def _meet(meeting: Meeting, count: int) -> None:
    with trio.fail_after(10):
        while len(meeting.neighbours) < count:
            await trio.lowlevel.checkpoint()


def _only(group: ExceptionGroup[Exception]) -> Exception:
    """Return the one error that concurrent tasks ended with."""
    (error,) = group.exceptions
    return _only(error) if isinstance(error, ExceptionGroup) else error
