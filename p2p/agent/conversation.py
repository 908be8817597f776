"""What the messages of one session mean, and to whom they go.

A neighbour's requests go to its `Server`, its answers to whoever fetches.
"""

from __future__ import annotations

import trio

from p2p.agent.departures import farewell_reason
from p2p.agent.roster import Roster
from p2p.agent.serving import Server
from p2p.agent.tolerance import BURST_RELAYED, RELAYED_PER_SECOND, Tolerance
from p2p.errors import RemoteProtocolError
from p2p.net.session import Session
from p2p.net.tls import Contact
from p2p.swarm.overlay import End
from p2p.wire import messages as m
from p2p.wire.dial import Contender

_REQUEST_TYPES = (
    m.GetHead,
    m.GetCommit,
    m.Ask,
    m.Want,
    m.GetUnit,
    m.GetHashes,
    m.Watch,
)
# Whoever says so does not want to be dialled again soon.
_ENOUGH = (m.Farewell.OVERLOADED, m.Farewell.IDLE)


class Conversation:
    """What one session's messages mean."""

    def __init__(
        self,
        roster: Roster,
        session: Session,
        server: Server,
        contact: Contact,
        hello: m.Hello,
    ) -> None:
        self._roster = roster
        self._session = session
        self._server = server
        self._contact = contact
        self._hello = hello
        now = trio.current_time()
        self._tolerance = Tolerance(now)
        self._relays = Tolerance(
            now, per_second=RELAYED_PER_SECOND, burst=BURST_RELAYED
        )
        self._farewell: m.Bye | None = None
        self._was_up = False
        self._refused = False

    def count(self, size: int) -> None:
        """Take note of bytes that came."""
        found = self._roster.found(self._session)
        if found is None:
            return
        found.taken_bytes += size
        if self._roster.listening is not None and found.is_of_site:
            self._roster.listening.data(self._session.peer, size)

    def over(self, error: str) -> None:
        """The session is over, for an error or because one side left."""
        theirs, ours = self._farewell, self._session.farewell
        last = theirs or ours
        if not error and last is not None and last.reason in _ENOUGH:
            self._refused = True
        reason = error or farewell_reason(theirs, ours)
        self._roster.dismiss(self._session, reason, self.end)

    @property
    def end(self) -> End:
        """How it went."""
        if self._refused:
            return End.REFUSED
        return End.MET if self._was_up else End.FAILED

    def receive(self, message: m.Message) -> None:
        """Pass a message on to where it belongs.

        Raises:
            RemoteProtocolError: more is said than anybody has to say.

        """
        peer = self._session.peer
        if isinstance(message, m.Hello):
            contender = Contender.of(self._roster.me, peer, self._hello, message)
            self._was_up = self._roster.admit(
                self._session, self._server, contender, self._contact.address
            )
            return
        found = self._roster.found(self._session)
        if found is None:
            return  # it was told to leave
        if isinstance(message, _REQUEST_TYPES):
            self._server.handle(message)
            return
        if isinstance(message, m.Bye):
            self._farewell = message
        if isinstance(message, m.Holdings | m.Ping):
            self._bear(message, self._tolerance)
        if isinstance(message, m.Holdings):
            found.holdings = message
            self._roster.hear(message)
        if isinstance(message, m.Record | m.Digest):
            is_of_use = self._roster.receive_state(found, message)
            self._bear(message, self._relays if is_of_use else self._tolerance)
            return
        if self._roster.listening is not None and found.is_of_site:
            if isinstance(message, m.Batch | m.Unit) and message.frame is not None:
                # Rates are those of content: it is content that is asked for.
                saved = sum(map(len, message.content)) - len(message.frame)
                self._roster.listening.data(peer, saved)
            self._roster.listening.message(peer, message)

    def _bear(self, message: m.Message, tolerance: Tolerance) -> None:
        if not tolerance.bears(trio.current_time()):
            kind = type(message).__name__.upper()
            raise RemoteProtocolError(f"a flood of messages, the last a {kind}")
