"""Dialling, accepting and speaking to neighbours; `roster` says who they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import trio
from nacl.signing import SigningKey

from p2p import __version__
from p2p.agent.announcement import Announcement
from p2p.agent.conversation import Conversation
from p2p.agent.members import Members, Worth
from p2p.agent.neighbour import Neighbour
from p2p.agent.neighbourhood import Listening
from p2p.agent.roster import Roster
from p2p.agent.serving import Server
from p2p.agent.sharing import Sharing
from p2p.errors import (
    ConnectError,
    Error,
    RemoteProtocolError,
    TransportError,
    single_error,
)
from p2p.net.advert import InstanceId
from p2p.net.listener import Listener
from p2p.net.session import Session
from p2p.net.target import Target
from p2p.net.tls import Contact, Endpoint, dial
from p2p.swarm import action as a
from p2p.swarm.gossip import Member
from p2p.swarm.overlay import MAX_RETRY_SECONDS, RETRY_SECONDS, End
from p2p.wire import messages as m
from p2p.wire.limits import INSTANCE_BYTES
from p2p.wire.record import Claim, commit_tag

_log = logging.getLogger(__name__)


class Met(NamedTuple):
    """What came of dialling: who was there, if anybody, and how it went."""

    peer: m.DeviceId | None
    end: End

    @property
    def was_up(self) -> bool:
        """Whether there was a session, for as long as both wanted it."""
        return self.end is End.MET


class Neighbours(Roster):
    """Dials and accepts neighbours, and speaks to them.

    Attributes:
        epoch: this run's number; it grows from run to run.
        port: where we listen, 0 before.
        abilities: what we can beyond the protocol's first version.
        members: what is known of the whole site.

    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        site: str,
        epoch: int,
        sharing: Sharing,
        make_server: Callable[[Session], Server],
        signing_key: bytes,
        device_key: SigningKey | None,
        keep_epoch: Callable[[int], Awaitable[None]],
    ) -> None:
        """Meet members through `endpoint`; `make_server` serves each."""
        instance = InstanceId(os.urandom(INSTANCE_BYTES))
        me = endpoint.identity.device_id
        super().__init__(me, instance, site=site, sharing=sharing)
        self.epoch = epoch
        self._signing_key = signing_key
        self.abilities = frozenset[str]()
        self._endpoint = endpoint
        self._make_server = make_server
        self._dials = 0
        self.members = Members(
            me,
            place=instance,
            epoch=epoch,
            key=device_key,
            send=self._send,
            keep_epoch=keep_epoch,
        )
        self.members.subscribe(self._hear_member)
        self.port = 0
        sharing.subscribe(self._tell_holdings)

    # -- meeting -----------------------------------------------------------------

    async def listen(self, listener: Listener) -> None:
        """Accept neighbours until cancelled."""
        self.port = listener.port
        await listener.serve(self._endpoint, self._accept)

    async def keep_dialling(self, targets: Sequence[Target]) -> None:
        """Keep a session with the one peer at these targets, until cancelled."""
        pause = RETRY_SECONDS
        is_expected = True
        while True:
            met = await self.dial(targets)
            if is_expected and not met.was_up:
                self.expect_less()
            is_expected = False
            if met.peer is not None:
                # It dialled us meanwhile, or was found in another way.
                await self.until_left(met.peer)
            pause = RETRY_SECONDS if met.was_up else min(pause * 2, MAX_RETRY_SECONDS)
            await trio.sleep(pause)

    async def dial(self, targets: Sequence[Target]) -> Met:
        """Dial a peer and talk until the session ends; names are resolved anew."""
        contact: Contact | None = None
        failure = End.FAILED
        try:
            contact = await dial(self._endpoint, targets)
        except* ConnectError as group:
            # It is away, or not (yet) one of us: the caller tries again.
            self._count(group)
        except* TransportError as group:
            self._count(group)
            failure = End.SLOW
        if contact is None:
            return Met(None, failure)
        self._dials += 1
        return Met(contact.peer, await self._talk(contact, self._dials))

    async def _accept(self, contact: Contact) -> None:
        await self._talk(contact, 0)

    def _count(self, group: BaseExceptionGroup[Error]) -> str:
        """Count why a session ended, or did not begin; return it."""
        error = single_error(group)
        kind = type(error).__name__
        self.endings[kind] += 1
        # Each kind is told once, so that a flood cannot fill the log.
        level = logging.INFO if self.endings[kind] == 1 else logging.DEBUG
        _log.log(level, "a session ended: %s", error)
        return str(error)

    async def _talk(self, contact: Contact, dial_number: int) -> End:
        """Run a session to its end; tell how it went."""
        traffic = self._endpoint.traffic
        session = Session(contact.stream, contact.peer, traffic.upload, traffic.beat)
        session.on_quiet = lambda: session.send(self._sharing.message())
        seen_epoch, seen_seq = self.members.gossip.seen(contact.peer)
        hello = m.Hello(
            software=f"ostree-p2p/{__version__}",
            site=self._site,
            instance=self.instance,
            epoch=self.epoch,
            seen_epoch=seen_epoch,
            seen_seq=seen_seq,
            dial=dial_number,
            port=self.port,
            signing_key=self._signing_key,
            abilities=self.abilities,
        )
        server = self._make_server(session)
        conversation = Conversation(self, session, server, contact, hello)
        reason = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.run)
                await session.run(hello, conversation.receive, conversation.count)
                nursery.cancel_scope.cancel()
        except* RemoteProtocolError as group:
            reason = self._count(group)
            self.ban(contact.peer, reason)
        except* TransportError as group:
            # Said to the peer where that was possible; the session is over.
            reason = self._count(group)
        finally:
            conversation.over(reason)
        return conversation.end

    # -- saying ------------------------------------------------------------------

    def request(
        self, peer: m.DeviceId, build: Callable[[m.RequestId], m.Request]
    ) -> int:
        """Send a request; return its id on the session, or 0 if there is no room."""
        found = self.get(peer)
        if found is None or not found.session.connection.is_up:
            return 0
        request = build(found.session.connection.new_request())
        if not found.session.connection.has_room(request):
            return 0
        found.session.send(request)
        return request.request

    def cancel(self, peer: m.DeviceId, request: int) -> None:
        """Withdraw a request that is still open."""
        found = self.get(peer)
        if found is not None and request in found.session.connection.asked:
            found.session.send(m.Cancel(m.RequestId(request)))

    def drop(self, peer: m.DeviceId, blame: a.Blame, *, banned: bool) -> None:
        """End the session with a neighbour that harms or hinders us."""
        if banned:
            self.ban(peer, blame.value)
        found = self.get(peer)
        if found is not None:
            self.endings[blame.value] += 1
            found.session.leave(m.Farewell.MISBEHAVED, blame.value)
            self.dismiss(found.session, f"we left: {blame.value}")

    def announce(self, news: a.AnnounceHave) -> None:
        """Tell whoever watches what came."""
        announcement = Announcement(news.names, news.arriving)
        for found in self:
            found.server.announce(announcement)

    def announce_member(self, news: a.AnnounceMember) -> None:
        """Tell all members what we get, and what we do at the origin."""
        self.members.say(news.claim, is_urgent=news.is_urgent)

    def begin(self, listening: Listening) -> None:
        """Tell somebody of all neighbours and members, who is there first."""
        super().begin(listening)
        for member in self.members.all():
            listening.member(member.id, member)

    def end(self) -> None:
        """Tell nobody any more; nothing is wanted now."""
        super().end()
        self.members.say(Claim())

    def greet(self, found: Neighbour) -> None:
        """Exchange what is said of members with somebody of this site who came up."""
        hello = found.session.connection.peer
        if found.is_of_site and hello is not None:
            self.members.joined(found.session.peer, hello)

    def part(self, found: Neighbour) -> None:
        """Exchange nothing more with somebody whose session is over."""
        self.members.left(found.session.peer)

    def receive_state(self, found: Neighbour, message: m.Record | m.Digest) -> bool:
        """Take what a neighbour says of members; tell whether it may be of use."""
        if not found.is_of_site:
            return False
        worth = self.members.receive(found.session.peer, message)
        if worth is Worth.FORGED:
            self.drop(found.session.peer, a.Blame.FORGED_RECORD, banned=True)
        return worth is Worth.FINE

    def _hear_member(self, who: m.DeviceId, member: Member | None) -> None:
        if self.listening is not None:
            self.listening.member(who, member)

    def _send(self, peer: m.DeviceId, message: m.Record | m.Digest) -> None:
        found = self.get(peer)
        if found is not None and found.session.connection.is_up:
            found.session.send(message)

    def _tell_holdings(self) -> None:
        complete = (
            c.checksum for c in self._sharing.commits() if c.held is m.Held.COMPLETE
        )
        self.members.holds(tuple(map(commit_tag, complete)))
        message = self._sharing.message()
        for found in self:
            if found.session.connection.is_up:
                found.session.send(message)
