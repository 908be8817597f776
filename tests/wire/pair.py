"""Two connections that hand each other their bytes: both ends of every message."""

from dataclasses import replace

from p2p.wire import messages as m
from p2p.wire.connection import Connection
from tests.wire.samples import HELLO


class ConnectionPair:
    """A dialler and an acceptor; what one sends is checked to reach the other."""

    def __init__(self, *, hello: m.Hello = HELLO, other: m.Hello | None = None) -> None:
        """Connect two ends; `other` is the acceptor's HELLO (default: the same)."""
        self.dialler = Connection()
        self.acceptor = Connection()
        self.send(self.dialler, hello)
        self.send(self.acceptor, replace(other or hello, dial=0))

    def other(self, end: Connection) -> Connection:
        return self.acceptor if end is self.dialler else self.dialler

    def carry(self, source: Connection) -> list[m.Message]:
        """Hand over all that waits, and return the events it made."""
        target = self.other(source)
        events = []
        while buffers := source.data_to_send():
            events += feed(target, b"".join(buffers))
        return events

    def send(self, end: Connection, *messages: m.Message) -> None:
        """Send messages and check that the other end gets equal ones."""
        for message in messages:
            end.send(message)
        assert self.carry(end) == list(messages)

    def open(self, request: m.Request) -> m.RequestId:
        """Let the dialler ask, and return the request's id."""
        self.send(self.dialler, request)
        return request.request


def drain(end: Connection) -> list[m.Message]:
    """Return all events that wait."""
    events = []
    while (event := end.next_event()) is not None:
        events.append(event)
    return events


def feed(end: Connection, data: bytes) -> list[m.Message]:
    """Give an end bytes, and return the events in them."""
    end.receive_data(data)
    return drain(end)


def output(end: Connection) -> bytes:
    """Return all bytes that an end wants to write."""
    written = b""
    while buffers := end.data_to_send():
        written += b"".join(buffers)
    return written
