"""Meeting neighbours: identity, port, mDNS and sharing, put together for one block.

`p2p pull`, `p2p serve` and the agent meet through this alone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nacl.signing
import trio

from p2p.agent.company import Company
from p2p.agent.config import AgentConfig, Fleet
from p2p.agent.damage import Damage
from p2p.agent.dialling import Dialling
from p2p.agent.hash_lists import HashLists
from p2p.agent.limits import Limits, limits_of, resolve
from p2p.agent.links import Links
from p2p.agent.members import FIRST_SECONDS
from p2p.agent.neighbours import Neighbours
from p2p.agent.scratch import Scratch
from p2p.agent.searching import Searching, read_advert_key
from p2p.agent.serving import Server
from p2p.agent.sharing import SharedCommit, Sharing
from p2p.agent.units import HashSigner, Units
from p2p.errors import ConfigError, RepositoryError, TransportError
from p2p.net.advert import AdvertKey
from p2p.net.device_key import load_device_key
from p2p.net.discovery import Settings, open_discovery
from p2p.net.identity import Identity, fleet_identity, open_identity
from p2p.net.interfaces import Choice
from p2p.net.listener import Listener
from p2p.net.session import Session
from p2p.net.target import DEFAULT_PORT, Target
from p2p.net.tls import Endpoint
from p2p.net.traffic import Traffic
from p2p.ostree.canonical import CanonicalReader
from p2p.ostree.disk import write_file, writing
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from p2p.swarm.gossip import Member
from p2p.trust.clock import RELEASED
from p2p.trust.policy import Clock
from p2p.trust.withdrawn import load_withdrawn
from p2p.wire.messages import DeviceId
from p2p.wire.packing import abilities

_log = logging.getLogger(__name__)

DEVICE_PATH = "extensions/p2p/device"
"""Where a command that has no state directory keeps who it is, in its repository."""
_EPOCH_FILE = "epoch"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeetingOptions:
    """How neighbours are met.

    Attributes:
        state: directory of this device's own key, and of its epoch; unfinished
            large objects wait there too.
        fleet: the files that make it a member; None is open membership.
        site: the members that share one origin link have one name.
        host, port: where to listen; port 0 lets the system choose.
        any_port: whether another port will do where that one is taken.
        peers: static neighbours.
        compress: whether content may come, and is given, as zstd frames.
        share: whether to give neighbours anything.
        mdns: whether to look for neighbours, and be found.
        settle_seconds: how long neighbours may take to come up after the start.
        choice: on which interfaces.
        clock_floor: a time that has passed for certain, see `p2p.trust.clock`.
        limits: of the network, where nobody changes them meanwhile.

    """

    state: str
    fleet: Fleet | None = None
    site: str = ""
    host: str | None = None
    port: int = 0
    any_port: bool = False
    peers: tuple[Target, ...] = ()
    compress: bool = True
    share: bool = True
    mdns: bool = False
    settle_seconds: float = 3.0
    choice: Choice = field(default_factory=Choice)
    clock_floor: int = RELEASED
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, config: AgentConfig) -> MeetingOptions:
        """Return the options that a configuration says."""
        return cls(
            state=config.state,
            fleet=config.fleet,
            site=config.site,
            host=config.listen_host or None,
            port=config.listen_port,
            any_port=config.mdns and config.listen_port == DEFAULT_PORT,
            peers=config.peers,
            compress=config.compress,
            mdns=config.mdns,
            choice=Choice(only=config.interfaces, never=config.never_interfaces),
            limits=limits_of(resolve(config.limits.layers())),
        )


@dataclass(slots=True)
class Meeting:
    """Neighbours are met while this is open.

    Attributes:
        company: for pulls, one after the other.
        neighbours: the sessions.
        dialling: what opens them.
        sharing: what they may have.
        port: where they reach this device.
        identity: who it is to them.
        damage: what was found damaged here.
        searching: how they are found; None without mDNS, or not yet.
        failure: why they cannot be looked for; else "".

    """

    company: Company
    neighbours: Neighbours
    dialling: Dialling
    sharing: Sharing
    port: int
    identity: Identity
    damage: Damage
    searching: Searching | None = None
    failure: str = ""

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """Return who is met, known, banned and who left, as JSON values."""
        return self.neighbours.describe() | {
            "known": self.dialling.describe(),
            "members": self.neighbours.members.describe(),
        }

    def problems(self) -> list[str]:
        """Return what keeps neighbours from being met, for people."""
        problems = []
        if self.identity.replaced:
            problems.append(f"a new device key was made: {self.identity.replaced}")
        if self.failure:
            problems.append(f"no neighbours are looked for: {self.failure}")
        if self.searching is not None:
            problems += self.searching.problems()
        banned = len(self.neighbours.banned)
        if banned:
            problems.append(f"not listened to: {banned} devices; see `p2p peers`")
        return problems + self.damage.problems()


def _open_identity(options: MeetingOptions) -> Identity:
    if options.fleet is None:
        return open_identity(options.state)
    return fleet_identity(
        authority=options.fleet.authority,
        certificate=options.fleet.certificate,
        key=options.fleet.key,
    )


def next_epoch(directory: str) -> int:
    """Return a number that is larger at each start, kept in a state directory.

    Damage starts it again from the time: later than all before, if the clock is right.

    Raises:
        RepositoryError: the directory cannot be written.

    """
    path = os.path.join(directory, _EPOCH_FILE)
    with writing(path):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        epoch = 0
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            text = file.read(32).strip()
            epoch = int(text) if text.isdigit() else int(time.time())
        epoch = min(epoch + 1, (1 << 63) - 1)
        write_file(path, b"%d\n" % epoch, fsync=True)
    return epoch


def keep_epoch(directory: str, epoch: int) -> None:
    """Have the next start begin above an epoch; RepositoryError if that cannot be."""
    path = os.path.join(directory, _EPOCH_FILE)
    with writing(path):
        write_file(path, b"%d\n" % epoch, fsync=True)


@asynccontextmanager
async def open_meeting(
    holdings: Holdings, options: MeetingOptions, traffic: Traffic | None = None
) -> AsyncIterator[Meeting]:
    """Listen, dial and search until the block ends; nothing is shared yet.

    `traffic` is what the sessions share of rates and priority; by default what the
    options say.

    Raises:
        ConfigError: the port, the identity or the fleet's files cannot be used.
        TransportError: the interfaces cannot be read.

    """
    identity = await trio.to_thread.run_sync(_open_identity, options)
    key = await trio.to_thread.run_sync(read_advert_key, options.fleet)
    epoch = await trio.to_thread.run_sync(next_epoch, options.state)
    floor = options.clock_floor
    traffic = traffic or _make_traffic(options.limits)
    endpoint = Endpoint(
        identity, lambda: Clock(time.time(), trusted=True, floor=floor), traffic
    )
    sharing = Sharing(holdings)
    reader = CanonicalReader(holdings, scratch=options.state)
    lists = HashLists(reader)
    scratch = Scratch(options.state, lists)
    signer = nacl.signing.SigningKey.generate()
    sign = HashSigner(
        signer.verify_key.encode(), lambda data: signer.sign(data).signature
    )
    units = Units(reader, lists, scratch, sign)
    damage = Damage(holdings.repo)
    neighbours = Neighbours(
        endpoint,
        site=options.site,
        epoch=epoch,
        sharing=sharing,
        make_server=_server_maker(sharing, holdings, units, damage),
        signing_key=sign.public,
        device_key=await trio.to_thread.run_sync(load_device_key, identity),
        keep_epoch=lambda epoch: trio.to_thread.run_sync(
            keep_epoch, options.state, epoch
        ),
    )
    neighbours.abilities = abilities(compress=options.compress)
    company = Company(
        neighbours.me,
        neighbours,
        sharing if options.share else None,
        scratch,
        traffic=traffic,
    )
    try:
        listener = await _open_listener(options)
        meeting = Meeting(
            company=company,
            neighbours=neighbours,
            dialling=Dialling(neighbours),
            sharing=sharing,
            port=listener.port,
            identity=identity,
            damage=damage,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.upload.run)
            nursery.start_soon(neighbours.listen, listener)
            nursery.start_soon(meeting.dialling.run)
            nursery.start_soon(neighbours.members.run)
            nursery.start_soon(_exchange, meeting, options)
            count = math.inf if options.mdns else len(options.peers)
            neighbours.expect(count, options.settle_seconds)
            for target in options.peers:
                nursery.start_soon(neighbours.keep_dialling, [target])
            if options.mdns:
                nursery.start_soon(_search, meeting, key, options)
            yield meeting
            nursery.cancel_scope.cancel()
    finally:
        reader.close()


def _make_traffic(limits: Limits) -> Traffic:
    traffic = Traffic()
    traffic.change(upload=limits.upload, download=limits.download, dscp=limits.dscp)
    return traffic


def _server_maker(
    sharing: Sharing,
    holdings: Holdings,
    units: Units,
    damage: Damage,
) -> Callable[[Session], Server]:
    disk = trio.CapacityLimiter(1)

    def make_server(session: Session) -> Server:
        return Server(
            session,
            sharing=sharing,
            holdings=holdings,
            units=units,
            damage=damage,
            disk=disk,
        )

    return make_server


async def _open_listener(options: MeetingOptions) -> Listener:
    try:
        return await Listener.open(options.port, host=options.host)
    except ConfigError:
        # mDNS says the port, so any will do for those who search.
        if not (options.any_port and options.port):
            raise
        return await Listener.open(0, host=options.host)


async def _exchange(meeting: Meeting, options: MeetingOptions) -> None:
    """Say where this device is, and dial members where they say they are."""
    members = meeting.neighbours.members
    try:
        links = await Links.open(options.choice)
    except TransportError as error:
        _log.warning("no addresses are exchanged: %s; %s", error, error.hint)
        return

    def hear(who: DeviceId, member: Member | None) -> None:
        addresses = () if member is None else member.claim.addresses
        meeting.dialling.told_of(who, links.targets(addresses))

    def lost(targets: tuple[Target, ...]) -> None:
        # It may be cut off and come back. mDNS would find it late: who asks again and
        # again asks ever more seldom (RFC 6762 §5.2).
        for member in members.all():
            said = links.targets(member.claim.addresses)
            if not set(targets).isdisjoint(said):
                meeting.dialling.told_of(member.id, said)

    members.subscribe(hear)
    meeting.dialling.on_lost = lost
    members.begin(FIRST_SECONDS if options.mdns else 0.0)
    with links.closing():
        while True:
            members.addresses = links.own(meeting.port, options.host)
            try:
                await links.wait()
            except TransportError as error:
                _log.warning("the addresses may be old: %s; %s", error, error.hint)


async def _search(
    meeting: Meeting, key: AdvertKey | None, options: MeetingOptions
) -> None:
    """Search by mDNS until cancelled; where that cannot be, the rest goes on."""
    neighbours = meeting.neighbours
    settings = Settings(choice=options.choice)
    try:
        async with open_discovery(neighbours.instance, settings) as discovery:
            meeting.searching = Searching(
                discovery,
                meeting.dialling,
                neighbours,
                meeting.sharing,
                key,
                port=meeting.port,
                site=options.site,
            )
            await meeting.searching.run()
    except TransportError as error:
        meeting.failure = str(error)
        neighbours.expect(len(options.peers), options.settle_seconds)
        _log.warning("no neighbours are looked for: %s; %s", error, error.hint)


async def share_refs(sharing: Sharing, repo: Repo) -> list[str]:
    """Share every complete commit that a ref names; return what cannot be shared."""
    loaded, problems = await trio.to_thread.run_sync(_load_refs, sharing, repo)
    for branch, shared in loaded:
        if sharing.commit(shared.checksum) is not shared:
            sharing.add(shared)
        if branch is not None:
            sharing.add_ref(*branch, shared.checksum)
    return problems


def _load_refs(
    sharing: Sharing, repo: Repo
) -> tuple[list[tuple[tuple[str, str] | None, SharedCommit]], list[str]]:
    """Return branches with their commits, and what is wrong with others."""
    withdrawn = load_withdrawn()
    commits: dict[Checksum, SharedCommit] = {}
    loaded = []
    problems = []
    for ref, checksum in repo.refs.all():
        if checksum in withdrawn:
            problems.append(f"{ref}: was withdrawn by its publisher")
            continue
        if repo.is_partial(checksum):
            problems.append(f"{ref}: is incomplete here")
            continue
        if checksum not in commits:
            try:
                commits[checksum] = sharing.load_complete(checksum)
            except RepositoryError as error:
                problems.append(f"{ref}: {error}")
                continue
        loaded.append((_branch(ref, repo), commits[checksum]))
    return loaded, problems


def _branch(ref: RefPath, repo: Repo) -> tuple[str, str] | None:
    """Return a ref's name for neighbours and its collection; None if it has none."""
    kind, _, rest = ref.partition("/")
    owner, _, branch = rest.partition("/")
    collection = repo.config.collection_id
    if kind == "heads":
        branch = rest
    elif kind == "mirrors":
        collection = owner
    elif kind == "remotes":
        collection = None
        with contextlib.suppress(ConfigError):  # its remote was removed
            collection = repo.remote(owner).collection_id
    # What keeps deployed commits, here and in a sysroot, is no branch.
    is_branch = not branch.startswith(("ostree/", "p2p/"))
    return (branch, collection or "") if is_branch else None
