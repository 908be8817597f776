"""Neighbours that break the rules on purpose, over real TLS with the real wire code.

A villain is a device that shares a repository as every other does. What it says and
what it hears goes through hooks, which a subclass bends.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from p2p.agent.meeting import Meeting
from p2p.agent.serving import Server
from p2p.errors import LocalProtocolError, RemoteProtocolError, TransportError
from p2p.net.identity import open_identity
from p2p.net.listener import Listener
from p2p.net.session import Session
from p2p.net.tls import Contact, Endpoint
from p2p.net.transport import Transport
from p2p.ostree.repo import Repo
from p2p.trust.policy import Clock
from p2p.wire import layout
from p2p.wire import messages as m
from p2p.wire.connection import Connection
from p2p.wire.frame import control_frame
from p2p.wire.outbox import Waiting
from tests.agent.devices import sharing

T = TypeVar("T", bound=m.Message)

Villains = TypeVar("Villains", bound="Villain")


class Stubborn(Connection):
    """Hears CANCEL and does not answer it."""

    def _receive_cancel(self, message: m.Cancel) -> m.Message | None:
        return message


class BentSession(Session):
    """A session whose words pass the villain first."""

    def __init__(self, contact: Contact, villain: Villain) -> None:
        super().__init__(villain.stream(contact), contact.peer)
        self._villain = villain
        self.connection = villain.connection()
        self.server: Server

    def send(self, message: m.Message) -> None:
        for said in self._villain.say(self, message):
            self.speak(said)

    def speak(self, message: m.Message) -> None:
        """Say this, as far as the wire's own rules let anybody say it."""
        super().send(message)

    def shout(self, *messages: layout.Plain) -> None:
        """Say these though the protocol's state forbids it."""
        for message in messages:
            self.write(control_frame(layout.encode(message)))

    def write(self, data: bytes) -> None:
        """Send bytes as they are, after the control that waits."""
        self.connection._outbox._control[object()] = Waiting(data, None)
        self._wake.set()


class Villain:
    """A neighbour; this one is honest.

    Attributes:
        heard: what it was told, in order.
        ended: how many of its sessions are over.
        port: where it listens.
        device: its device id.

    """

    def __init__(self) -> None:
        self.heard: list[m.Message] = []
        self.sessions: list[BentSession] = []
        self.ended = 0
        self.port = 0
        self.device = m.DeviceId("")
        self._news = trio.Event()

    # -- to be bent ----------------------------------------------------------------

    def connection(self) -> Connection:
        """Return the protocol's state of a new session."""
        return Connection()

    def stream(self, contact: Contact) -> Transport:
        """Return what a new session's bytes go through."""
        return contact.stream

    def greet(self, hello: m.Hello) -> m.Hello:
        """Return what to say of itself."""
        return hello

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        """Return what to say instead of what an honest device would."""
        return (message,)

    def hear(self, session: BentSession, message: m.Message) -> bool:
        """Take a message; True if an honest device shall not answer it."""
        return False

    # -- what came of it -----------------------------------------------------------

    def told(self, kind: type[T]) -> list[T]:
        return [message for message in self.heard if isinstance(message, kind)]

    async def until_told(self, kind: type[T], count: int = 1) -> list[T]:
        with trio.fail_after(20):
            while len(found := self.told(kind)) < count:
                await self._news.wait()
        return found

    async def until_ended(self, count: int = 1) -> None:
        """Wait until so many sessions are over."""
        with trio.fail_after(20):
            while self.ended < count:
                await self._news.wait()

    # -- being a device ------------------------------------------------------------

    async def meet(self, contact: Contact, meeting: Meeting) -> None:
        session = BentSession(contact, self)
        self.sessions.append(session)
        session.server = meeting.neighbours._make_server(session)

        def receive(message: m.Message) -> None:
            self._take(session, meeting, message)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.server.run)
                await session.run(self._hello(meeting), receive, lambda _: None)
                nursery.cancel_scope.cancel()
        except* (TransportError, RemoteProtocolError, LocalProtocolError):
            pass  # who is thrown out while talking
        finally:
            self.ended += 1
            self._tell()

    def _hello(self, meeting: Meeting) -> m.Hello:
        return self.greet(
            m.Hello(
                software="villain",
                site="",
                instance=bytes(16),
                epoch=1,
                dial=0,
                signing_key=meeting.neighbours._signing_key,
            )
        )

    def _take(self, session: BentSession, meeting: Meeting, message: m.Message) -> None:
        self.heard.append(message)
        self._tell()
        if self.hear(session, message):
            return
        if isinstance(message, m.Hello):
            session.send(meeting.sharing.message())
        elif isinstance(message, m.Request):
            session.server.handle(message)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


_NUMBERS = itertools.count()


@asynccontextmanager
async def running(
    villain: Villains, repo: Repo, directory: Path
) -> AsyncIterator[Villains]:
    """Let a villain share a repository under a name of its own."""
    identity = open_identity(str(directory / f"villain{next(_NUMBERS)}"))
    endpoint = Endpoint(identity, lambda: Clock(time.time(), trusted=True))
    villain.device = identity.device_id
    async with sharing(repo) as meeting, trio.open_nursery() as nursery:
        listener = await Listener.open(0, host="127.0.0.1")
        villain.port = listener.port

        async def meet(contact: Contact) -> None:
            await villain.meet(contact, meeting)

        nursery.start_soon(listener.serve, endpoint, meet)
        yield villain
        nursery.cancel_scope.cancel()
