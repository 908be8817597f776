"""The sessions with neighbours: who is met, which session is kept, who hears what.

A neighbour's requests go to its `Server`, its answers to whoever fetches. Nothing here
decides what to fetch.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import trio

from p2p import __version__
from p2p.agent.bans import Bans
from p2p.agent.departures import Departures, farewell_reason
from p2p.agent.neighbour import Neighbour
from p2p.agent.neighbourhood import Listening
from p2p.agent.serving import Server
from p2p.agent.sharing import Sharing
from p2p.agent.tolerance import Tolerance
from p2p.errors import Error, RemoteProtocolError, TransportError, single_error
from p2p.net.advert import InstanceId
from p2p.net.listener import Listener
from p2p.net.session import Session
from p2p.net.target import Target
from p2p.net.tls import Contact, Endpoint, dial
from p2p.swarm import action as a
from p2p.wire import messages as m
from p2p.wire.dial import Contender, replaces
from p2p.wire.limits import INSTANCE_BYTES
from p2p.wire.record import Claim, Signed, encode_body, encode_claim

# A neighbour that could not be reached is tried again after so many seconds, twice as
# many each time.
RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0
_log = logging.getLogger(__name__)
_REQUEST_TYPES = (
    m.GetHead,
    m.GetCommit,
    m.Ask,
    m.Want,
    m.GetUnit,
    m.GetHashes,
    m.Watch,
    m.Take,
)


class Met(NamedTuple):
    """What came of dialling: who was there, if anybody, and if it became a session."""

    peer: m.DeviceId | None
    was_up: bool


class Neighbours:
    """All sessions of this device.

    Attributes:
        endings: how often sessions ended for a reason that is somebody's fault.

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
    ) -> None:
        """Meet members through `endpoint`; `make_server` serves each."""
        self.epoch = epoch
        self.instance = InstanceId(os.urandom(INSTANCE_BYTES))
        self._signing_key = signing_key
        self._endpoint = endpoint
        self._site = site
        self._sharing = sharing
        self._make_server = make_server
        self._peers: dict[m.DeviceId, Neighbour] = {}
        self._bans = Bans()
        self._departures = Departures()
        self._dials = 0
        self._seq = 0
        self._claim = Claim()
        self._record: m.Record | None = None
        self.port = 0
        self.endings: Counter[str] = Counter()
        self.listening: Listening | None = None
        self._hearing: list[Callable[[m.HeldCommit], None]] = []
        self._changed = trio.Event()
        self.on_up: Callable[[InstanceId], None] = _nobody
        self._expected = 0.0
        self._expected_until = 0.0
        sharing.subscribe(self._tell_holdings)

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Neighbour]:
        """Return who is met now."""
        return iter(list(self._peers.values()))

    def subscribe(self, hear: Callable[[m.HeldCommit], None]) -> None:
        """Have `hear` called with each commit that a neighbour says it holds."""
        self._hearing.append(hear)

    def hear(self, holdings: m.Holdings) -> None:
        """Tell subscribers what a neighbour holds."""
        for hear in self._hearing:
            for held in holdings.commits:
                hear(held)

    def meets(self, instance: InstanceId) -> bool:
        """Tell whether there is a session with this run of an agent."""
        return any(met.instance == instance for met in self._peers.values())

    async def until_gone(self, instance: InstanceId) -> None:
        """Wait until there is no session with this run of an agent."""
        while self.meets(instance):
            await self._changed.wait()

    # -- who is there to draw on -----------------------------------------------------

    @property
    def has_sources(self) -> bool:
        """Whether anybody of this site is met."""
        return any(met.is_of_site for met in self._peers.values())

    def expect(self, count: float, seconds: float) -> None:
        """Expect so many neighbours, perhaps any number, to come up within a time."""
        self._expected = count
        self._expected_until = trio.current_time() + seconds
        self._change()

    @property
    def is_settled(self) -> bool:
        """Whether nobody else is expected to come up within moments."""
        is_over = trio.current_time() >= self._expected_until
        return is_over or len(self._peers) >= self._expected

    async def settle(self) -> None:
        """Wait until nobody else is expected to come up within moments."""
        with trio.move_on_at(self._expected_until):
            while not self.is_settled:
                await self._changed.wait()

    def begin(self, listening: Listening) -> None:
        """Tell somebody of all neighbours, who is there first."""
        self.listening = listening
        for peer, found in self._peers.items():
            hello = found.session.connection.peer
            if found.is_of_site and hello is not None:
                listening.joined(peer, hello)
                listening.message(peer, found.holdings)
                if found.record is not None:
                    listening.message(peer, found.record)

    def end(self) -> None:
        """Tell nobody any more; nothing is wanted now."""
        self.listening = None
        if self._claim.wants:
            self.announce_member(a.AnnounceMember(Claim()))

    @property
    def me(self) -> m.DeviceId:
        """This device's id."""
        return self._endpoint.identity.device_id

    def peers(self) -> Iterable[tuple[m.DeviceId, str, Session, m.Holdings]]:
        """Yield who is met: device, address, session, what it shares."""
        for peer, found in self._peers.items():
            yield peer, found.address, found.session, found.holdings

    # -- meeting -----------------------------------------------------------------

    async def listen(self, listener: Listener) -> None:
        """Accept neighbours until cancelled."""
        self.port = listener.port
        await listener.serve(self._endpoint, self._met)

    async def keep_dialling(self, targets: Sequence[Target]) -> None:
        """Keep a session with the one peer at these targets, until cancelled."""
        pause = RETRY_SECONDS
        is_expected = True
        while True:
            met = await self.dial(targets)
            if is_expected and not met.was_up:
                self._expected -= 1
                self._change()
            is_expected = False
            while met.peer in self._peers:
                # It dialled us meanwhile, or was found in another way.
                await self._changed.wait()
            pause = RETRY_SECONDS if met.was_up else min(pause * 2, MAX_RETRY_SECONDS)
            await trio.sleep(pause)

    async def dial(self, targets: Sequence[Target]) -> Met:
        """Dial a peer and talk until the session ends; names are resolved anew."""
        peer: m.DeviceId | None = None
        was_up = False
        try:
            contact = await dial(self._endpoint, targets)
            peer = contact.peer
            self._dials += 1
            was_up = await self._talk(contact, self._dials)
        except* (TransportError, RemoteProtocolError) as group:
            # It is away, or not (yet) one of us: the caller tries again.
            self._count(group)
        return Met(peer, was_up)

    async def _met(self, contact: Contact) -> None:
        try:
            await self._talk(contact, 0)
        except* (TransportError, RemoteProtocolError) as group:
            # Said to the peer where that was possible; the session is over.
            self._count(group)

    def _count(self, group: BaseExceptionGroup[Error]) -> None:
        """Count why a session ended, or did not begin."""
        error = single_error(group)
        kind = type(error).__name__
        self.endings[kind] += 1
        # Each kind is told once, so that a flood cannot fill the log.
        level = logging.INFO if self.endings[kind] == 1 else logging.DEBUG
        _log.log(level, "a session ended: %s", error)

    async def _talk(self, contact: Contact, dial_number: int) -> bool:
        """Run a session to its end; tell whether it was ever up."""
        upload = self._endpoint.traffic.upload
        session = Session(contact.stream, contact.peer, upload)
        hello = m.Hello(
            software=f"ostree-p2p/{__version__}",
            site=self._site,
            instance=self.instance,
            epoch=self.epoch,
            dial=dial_number,
            port=self.port,
            signing_key=self._signing_key,
        )
        server = self._make_server(session)
        conversation = _Conversation(self, session, server, contact, hello)
        reason = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.run)
                await session.run(hello, conversation.receive, conversation.count)
                nursery.cancel_scope.cancel()
        except* RemoteProtocolError as group:
            reason = str(single_error(group))
            self._ban(contact.peer, reason)
            raise
        except* TransportError as group:
            reason = str(single_error(group))
            raise
        finally:
            conversation.end(reason)
        return conversation.was_up

    # -- who is not listened to ----------------------------------------------------

    @property
    def banned(self) -> dict[m.DeviceId, str]:
        """Who is not listened to for a while, and why."""
        return self._bans.all(trio.current_time())

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """Return who is met, who is banned and who left, as JSON values."""
        now = trio.current_time()
        return {
            "peers": [met.describe() for met in self._peers.values()],
            "banned": self._bans.describe(now),
            "ended": self._departures.describe(now),
        }

    def _ban(self, peer: m.DeviceId, reason: str) -> None:
        if self._bans.add(peer, reason, trio.current_time()):
            _log.warning("device %s is not listened to any more: %s", peer, reason)

    def admit(
        self, session: Session, server: Server, contender: Contender, address: str
    ) -> bool:
        """Take a session whose HELLOs passed; False if another one is kept."""
        peer = session.peer
        offence = self._bans.reason(peer, trio.current_time())
        if offence:
            session.leave(m.Farewell.MISBEHAVED, offence)
            return False
        old = self._peers.get(peer)
        if old is not None and not replaces(contender, old.contender):
            session.leave(m.Farewell.DUPLICATE)
            return False
        if old is not None:
            self._gone(peer)
            old.session.leave(m.Farewell.DUPLICATE)
        is_of_site = self._is_of_site(session)
        self._peers[peer] = Neighbour(session, server, contender, address, is_of_site)
        session.send(self._sharing.message())
        self._tell_record(self._peers[peer])
        self._change()
        self.on_up(InstanceId(contender.peer[0]))
        hello = session.connection.peer
        if self.listening is not None and is_of_site and hello is not None:
            self.listening.joined(peer, hello)
        return True

    def _is_of_site(self, session: Session) -> bool:
        """Whether a neighbour is of this site, or one of the two does not say."""
        hello = session.connection.peer
        theirs = "" if hello is None else hello.site
        return theirs == self._site or not (theirs and self._site)

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def dismiss(self, session: Session, reason: str) -> None:
        """Forget a session that ended, if it was the one kept."""
        found = self._peers.get(session.peer)
        if found is not None and found.session is session:
            del self._peers[session.peer]
            now = trio.current_time()
            self._departures.note(session.peer, found.address, reason, now)
            self._change()
            self._gone(session.peer)

    def _gone(self, peer: m.DeviceId) -> None:
        if self.listening is not None:
            self.listening.left(peer)

    def found(self, session: Session) -> Neighbour | None:
        """Return the neighbour of a session, if that is the one kept."""
        found = self._peers.get(session.peer)
        return found if found is not None and found.session is session else None

    # -- saying ------------------------------------------------------------------

    def request(
        self, peer: m.DeviceId, build: Callable[[m.RequestId], m.Request]
    ) -> int:
        """Send a request; return its id on the session, or 0 if there is no room."""
        found = self._peers.get(peer)
        if found is None or not found.session.connection.is_up:
            return 0
        request = build(found.session.connection.new_request())
        if not found.session.connection.has_room(request):
            return 0
        found.session.send(request)
        return request.request

    def cancel(self, peer: m.DeviceId, request: int) -> None:
        """Withdraw a request that is still open."""
        found = self._peers.get(peer)
        if found is not None and request in found.session.connection.asked:
            found.session.send(m.Cancel(m.RequestId(request)))

    def drop(self, peer: m.DeviceId, blame: a.Blame, *, banned: bool) -> None:
        """End the session with a neighbour that harms or hinders us."""
        if banned:
            self._ban(peer, blame.value)
        found = self._peers.get(peer)
        if found is not None:
            self.endings[blame.value] += 1
            found.session.leave(m.Farewell.MISBEHAVED, blame.value)
            self.dismiss(found.session, f"we left: {blame.value}")

    def announce(self, news: a.AnnounceHave) -> None:
        """Tell whoever watches what came."""
        for found in self._peers.values():
            found.server.announce(news.names, news.arriving)

    def announce_member(self, news: a.AnnounceMember) -> None:
        """Tell all neighbours what we get, and what we do at the origin."""
        self._seq += 1
        self._claim = news.claim
        body = encode_body(Signed(encode_claim(news.claim)))
        self._record = m.Record(self.me, self.epoch, self._seq, body)
        for found in self._peers.values():
            self._tell_record(found)

    def _tell_record(self, found: Neighbour) -> None:
        is_heard = found.is_of_site and found.session.connection.is_up
        if is_heard and self._record is not None:
            found.session.send(self._record)

    def _tell_holdings(self) -> None:
        message = self._sharing.message()
        for found in self._peers.values():
            if found.session.connection.is_up:
                found.session.send(message)


class _Conversation:
    """What one session's messages mean."""

    def __init__(
        self,
        neighbours: Neighbours,
        session: Session,
        server: Server,
        contact: Contact,
        hello: m.Hello,
    ) -> None:
        self._neighbours = neighbours
        self._session = session
        self._server = server
        self._contact = contact
        self._hello = hello
        self._tolerance = Tolerance(trio.current_time())
        self._farewell: m.Bye | None = None
        self.was_up = False

    def count(self, size: int) -> None:
        """Take note of bytes that came."""
        found = self._neighbours.found(self._session)
        if found is None:
            return
        found.taken_bytes += size
        if self._neighbours.listening is not None and found.is_of_site:
            self._neighbours.listening.data(self._session.peer, size)

    def end(self, error: str) -> None:
        """The session is over, for an error or because one side left."""
        reason = error or farewell_reason(self._farewell, self._session.farewell)
        self._neighbours.dismiss(self._session, reason)

    def receive(self, message: m.Message) -> None:
        """Pass a message on to where it belongs.

        Raises:
            RemoteProtocolError: more is said than anybody has to say.

        """
        peer = self._session.peer
        if isinstance(message, m.Hello):
            contender = Contender.of(self._neighbours.me, peer, self._hello, message)
            self.was_up = self._neighbours.admit(
                self._session, self._server, contender, self._contact.address
            )
            return
        found = self._neighbours.found(self._session)
        if found is None:
            return  # it was told to leave
        if isinstance(message, _REQUEST_TYPES):
            self._server.handle(message)
            return
        if isinstance(message, m.Bye):
            self._farewell = message
        if isinstance(message, m.Holdings | m.Record | m.Digest | m.Ping):
            self._bear(message)
        if isinstance(message, m.Holdings):
            found.holdings = message
            self._neighbours.hear(message)
        if isinstance(message, m.Record) and message.member == peer:
            found.record = message
        if self._neighbours.listening is not None and found.is_of_site:
            self._neighbours.listening.message(peer, message)

    def _bear(self, message: m.Message) -> None:
        if not self._tolerance.bears(trio.current_time()):
            kind = type(message).__name__.upper()
            raise RemoteProtocolError(f"a flood of messages, the last a {kind}")


def _nobody(_: InstanceId) -> None:
    """Nobody wants to know who came."""
