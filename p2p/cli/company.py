"""Opens what a command needs to meet neighbours: identity, port, sharing."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nacl.signing
import trio

from p2p.agent.company import Company
from p2p.agent.neighbours import Neighbours
from p2p.agent.serving import HashSigner, Server
from p2p.agent.sharing import Sharing
from p2p.net.identity import open_identity
from p2p.net.listener import Listener
from p2p.net.session import Session
from p2p.net.target import Target
from p2p.net.tls import Endpoint
from p2p.ostree.canonical import CanonicalReader
from p2p.ostree.holdings import Holdings
from p2p.ostree.repo import Repo
from p2p.trust.policy import Clock
from p2p.web.listen import parse_address

DEVICE_PATH = "extensions/p2p/device"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeetingOptions:
    """How neighbours are met.

    Attributes:
        site: the members that share one origin link have one name.
        host, port: where to listen; port 0 lets the system choose.
        peers: static neighbours.
        share: whether to give neighbours anything.

    """

    site: str = ""
    host: str | None = None
    port: int = 0
    peers: tuple[Target, ...] = ()
    share: bool = True


@dataclass(frozen=True, slots=True)
class Meeting:
    """An open company."""

    company: Company
    neighbours: Neighbours
    sharing: Sharing
    port: int


def parse_target(text: str) -> Target:
    """Return HOST:PORT as a target."""
    return Target(*parse_address(text))


@asynccontextmanager
async def open_meeting(
    repo: Repo, holdings: Holdings, options: MeetingOptions
) -> AsyncIterator[Meeting]:
    """Listen and dial until the block ends; nothing is shared yet."""
    identity = open_identity(os.path.join(repo.path, DEVICE_PATH))
    endpoint = Endpoint(identity, lambda: Clock(time.time(), trusted=True))
    sharing = Sharing(holdings)
    reader = CanonicalReader(holdings, scratch=os.path.join(repo.path, "tmp"))
    signer = nacl.signing.SigningKey.generate()
    disk = trio.CapacityLimiter(1)

    def make_server(session: Session) -> Server:
        return Server(
            session,
            sharing=sharing,
            holdings=holdings,
            reader=reader,
            signer=HashSigner(
                signer.verify_key.encode(), lambda data: signer.sign(data).signature
            ),
            disk=disk,
        )

    neighbours = Neighbours(
        endpoint,
        site=options.site,
        sharing=sharing,
        make_server=make_server,
        signing_key=signer.verify_key.encode(),
    )
    company = Company(neighbours.me, neighbours, sharing if options.share else None)
    listener = await Listener.open(options.port, host=options.host)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(neighbours.listen, listener)
            for target in options.peers:
                nursery.start_soon(neighbours.keep_dialling, [target])
            yield Meeting(company, neighbours, sharing, listener.port)
            nursery.cancel_scope.cancel()
    finally:
        reader.close()


def share_refs(sharing: Sharing, repo: Repo) -> Sequence[str]:
    """Share every complete commit that a ref names; return what cannot be shared."""
    problems = []
    for ref, checksum in repo.refs.all():
        if repo.is_partial(checksum):
            problems.append(f"{ref}: is incomplete here")
            continue
        sharing.add(sharing.load_complete(checksum))
        kind, _, rest = ref.partition("/")
        branch = rest if kind == "heads" else rest.partition("/")[2]
        sharing.add_ref(branch, "", checksum)
    return problems
