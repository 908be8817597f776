"""Who is met: the sessions that are kept, and what became of others.

One session is kept with each device, and as many as the overlay wants. Nothing here
decides what to fetch.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import trio

from p2p.agent.bans import Bans
from p2p.agent.departures import Departures
from p2p.agent.neighbour import Neighbour
from p2p.agent.neighbourhood import Listening
from p2p.agent.serving import Server
from p2p.agent.sharing import Sharing
from p2p.net.advert import InstanceId
from p2p.net.session import Session
from p2p.swarm.overlay import End, Overlay
from p2p.wire import messages as m
from p2p.wire.dial import Contender, replaces
from p2p.wire.limits import INSTANCE_BYTES

_log = logging.getLogger(__name__)


class Roster:
    """All sessions of this device.

    Attributes:
        me: this device.
        instance: this run of it.
        overlay: whom to keep sessions with.
        aliases: what the overlay calls devices whose instance is not known yet.
        listening: what is told of neighbours of this site.
        endings: how often sessions ended for a reason that is somebody's fault.
        on_up: called with who came up.
        on_change: called when somebody came up, or a session ended.

    """

    def __init__(
        self, me: m.DeviceId, instance: InstanceId, *, site: str, sharing: Sharing
    ) -> None:
        """Meet members of a site, who are told what is shared."""
        self.me = me
        self.instance = instance
        self.overlay = Overlay(instance, random.SystemRandom())
        self.aliases: dict[m.DeviceId, InstanceId] = {}
        self._site = site
        self._sharing = sharing
        self._peers: dict[m.DeviceId, Neighbour] = {}
        self._bans = Bans()
        self._departures = Departures()
        self.endings: Counter[str] = Counter()
        self.listening: Listening | None = None
        self._hearing: list[Callable[[m.HeldCommit], None]] = []
        self._changed = trio.Event()
        self.on_up: Callable[[InstanceId], None] = _nobody_came
        self.on_change: Callable[[], None] = _nothing_changed
        self._expected = 0.0
        self._expected_until = 0.0

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Neighbour]:
        """Return who is met now."""
        return iter(list(self._peers.values()))

    def get(self, peer: m.DeviceId) -> Neighbour | None:
        """Return the neighbour that is this device, if it is met."""
        return self._peers.get(peer)

    def found(self, session: Session) -> Neighbour | None:
        """Return the neighbour of a session, if that is the one kept."""
        found = self._peers.get(session.peer)
        return found if found is not None and found.session is session else None

    def meets(self, instance: InstanceId) -> bool:
        """Tell whether there is a session with this run of an agent."""
        return any(
            instance in (met.instance, met.member) for met in self._peers.values()
        )

    async def until_gone(self, instance: InstanceId) -> None:
        """Wait until there is no session with this run of an agent."""
        while self.meets(instance):
            await self._changed.wait()

    async def until_left(self, peer: m.DeviceId) -> None:
        """Wait until there is no session with a device."""
        while peer in self._peers:
            await self._changed.wait()

    def peers(self) -> Iterable[tuple[m.DeviceId, str, Session, m.Holdings]]:
        """Yield who is met: device, address, session, what it shares."""
        for peer, found in self._peers.items():
            yield peer, found.address, found.session, found.holdings

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """Return who is met, who is banned and who left, as JSON values."""
        now = trio.current_time()
        return {
            "peers": [met.describe() for met in self._peers.values()],
            "banned": self._bans.describe(now),
            "ended": self._departures.describe(now),
        }

    # -- who hears of it ---------------------------------------------------------------

    def subscribe(self, hear: Callable[[m.HeldCommit], None]) -> None:
        """Have `hear` called with each commit that a neighbour says it holds."""
        self._hearing.append(hear)

    def hear(self, holdings: m.Holdings) -> None:
        """Tell subscribers what a neighbour holds."""
        for hear in self._hearing:
            for held in holdings.commits:
                hear(held)

    def begin(self, listening: Listening) -> None:
        """Tell somebody of all neighbours, who is there first."""
        self.listening = listening
        for peer, found in self._peers.items():
            hello = found.session.connection.peer
            if found.is_of_site and hello is not None:
                listening.joined(peer, hello)
                listening.message(peer, found.holdings)

    def end(self) -> None:
        """Tell nobody any more."""
        self.listening = None

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

    def expect_less(self) -> None:
        """Expect one neighbour less."""
        self._expected -= 1
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

    # -- coming and going --------------------------------------------------------------

    def admit(
        self, session: Session, server: Server, contender: Contender, address: str
    ) -> bool:
        """Take a session whose HELLOs passed; False if it is not wanted."""
        peer = session.peer
        offence = self._bans.reason(peer, trio.current_time())
        if offence:
            session.leave(m.Farewell.MISBEHAVED, offence)
            return False
        old = self._peers.get(peer)
        if old is not None and not replaces(contender, old.contender):
            session.leave(m.Farewell.DUPLICATE)
            return False
        ours = contender.dialler == self.me
        member = self._name(peer, InstanceId(contender.peer[0]))
        admission = self.overlay.admit(member, self._spare(), ours=ours)
        if not admission.is_granted and old is None:
            session.leave(m.Farewell.OVERLOADED)
            return False
        if admission.instead_of is not None:
            self._send_away(admission.instead_of, m.Farewell.OVERLOADED)
        if old is not None:
            self._gone(old)
            self.overlay.down(old.member, End.MET, trio.current_time())
            old.session.leave(m.Farewell.DUPLICATE)
        is_of_site = self._is_of_site(session)
        found = Neighbour(session, server, contender, address, member, is_of_site)
        self._peers[peer] = found
        self.overlay.up(member, ours=ours)
        session.send(self._sharing.message())
        self._change()
        self.on_up(InstanceId(contender.peer[0]))
        hello = session.connection.peer
        if self.listening is not None and is_of_site and hello is not None:
            self.listening.joined(peer, hello)
        self.greet(found)
        return True

    def greet(self, found: Neighbour) -> None:
        """Note that somebody came up."""

    def part(self, found: Neighbour) -> None:
        """Note that a session is over."""

    def receive_state(
        self,
        found: Neighbour,  # noqa: ARG002 - for who overrides this
        message: m.Record | m.Digest,  # noqa: ARG002 - for who overrides this
    ) -> bool:
        """Take what a neighbour says of members; tell whether it may be of use."""
        return False

    def _name(self, peer: m.DeviceId, instance: InstanceId) -> InstanceId:
        """Return what the overlay calls a device.

        Nobody vouches for an instance: who says that of somebody else is not taken
        for it.
        """
        for other, met in self._peers.items():
            if other != peer and met.member == instance:
                return InstanceId(bytes.fromhex(peer)[:INSTANCE_BYTES])
        return self.aliases.get(peer, instance)

    def _is_of_site(self, session: Session) -> bool:
        """Whether a neighbour is of this site, or one of the two does not say."""
        hello = session.connection.peer
        theirs = "" if hello is None else hello.site
        return theirs == self._site or not (theirs and self._site)

    def _spare(self) -> set[bytes]:
        """Return who owes us nothing and is owed nothing."""
        return {
            met.member
            for met in self._peers.values()
            if not met.session.connection.asked and not met.session.connection.owed
        }

    def rename(self, before: bytes, after: InstanceId) -> None:
        """Call somebody who is met by its instance, now that mDNS has found it."""
        for met in self:
            if met.member == before and met.instance == after:
                ours = met.contender.dialler == self.me
                self.overlay.down(before, End.MET, trio.current_time())
                met.member = after
                self.overlay.up(after, ours=ours)

    def trim(self) -> None:
        """End sessions that are of no use any more."""
        while (member := self.overlay.superfluous(self._spare())) is not None:
            self._send_away(member, m.Farewell.IDLE)

    def _send_away(self, member: bytes, farewell: m.Farewell) -> None:
        for met in self:
            if met.member == member:
                met.session.leave(farewell)
                reason = f"we left, {farewell.name.lower()}"
                self.dismiss(met.session, reason, End.REFUSED)

    def dismiss(self, session: Session, reason: str, end: End = End.MET) -> None:
        """Forget a session that ended, if it was the one kept."""
        found = self.found(session)
        if found is None:
            return
        del self._peers[session.peer]
        now = trio.current_time()
        self._departures.note(session.peer, found.address, reason, now)
        self.overlay.down(found.member, end, now)
        self._change()
        self._gone(found)

    def _gone(self, found: Neighbour) -> None:
        self.part(found)
        if self.listening is not None:
            self.listening.left(found.session.peer)

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        self.on_change()

    # -- who is not listened to --------------------------------------------------------

    @property
    def banned(self) -> dict[m.DeviceId, str]:
        """Who is not listened to for a while, and why."""
        return self._bans.all(trio.current_time())

    def ban(self, peer: m.DeviceId, reason: str) -> None:
        """Listen to a device no more for a while."""
        if self._bans.add(peer, reason, trio.current_time()):
            _log.warning("device %s is not listened to any more: %s", peer, reason)


def _nobody_came(_: InstanceId) -> None:
    """Nobody wants to know who came."""


def _nothing_changed() -> None:
    """Nobody wants to know that something changed."""
