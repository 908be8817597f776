"""What every way to reach a peer offers: one ordered, private stream of bytes.

TLS over TCP is one; whatever comes later promises the same, and
`tests/net/conformance.py` checks it of each.
"""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType

import trio

from p2p.errors import TransportClosedError


class Transport(trio.abc.AsyncResource):
    """Bytes to and from one peer, in order, nothing lost or made up.

    One task may send while another receives; two of a kind at once are a bug and
    raise trio.BusyResourceError. Errors are TransportError's: ConnectError where
    the peer turns out to refuse us, TransportTimeoutError where it went silent,
    else TransportClosedError. After one, only `aclose` and `abort` make sense.
    """

    @abstractmethod
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; wait while the peer takes no more.

        Cancelling it may leave half of the data sent, so it ends the session: every
        later call fails, and the peer sees an abrupt end, never a clean one.
        """

    @abstractmethod
    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on. Idempotent."""

    @abstractmethod
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, after waiting for some; b"" at the clean end only.

        Cancelling it loses nothing.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Say that nothing more comes, and let go when the peer has what was sent.

        Takes a bounded time whatever the peer does; at once after an error, and when
        cancelled. Idempotent; other tasks that wait here get TransportClosedError.
        """

    @abstractmethod
    def abort(self) -> None:
        """Let go at once; the peer sees an abrupt end."""


def closed_here() -> TransportClosedError:
    """Return the error for using a transport this side has closed."""
    return TransportClosedError("this side closed the connection")


def torn() -> TransportClosedError:
    """Return the error for using a transport after an interrupted send."""
    return TransportClosedError("sending was interrupted, which ends the connection")


class OneTask:
    """Keeps two tasks from doing the same at once: trio.BusyResourceError."""

    __slots__ = ("_doing", "busy")

    def __init__(self, doing: str) -> None:
        """Name what only one task may do, for the error."""
        self._doing = doing
        self.busy = False

    def __enter__(self) -> None:
        if self.busy:
            raise trio.BusyResourceError(f"another task is {self._doing}")
        self.busy = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.busy = False
