"""Keeps all clients of a server together below a rate, first come, first served."""

from __future__ import annotations

import trio

from p2p.web.server.link import Link

SLICE_BYTES = 16 << 10
# What may go out at once after a pause, so that a small answer does not wait.
BURST_SECONDS = 0.05


class Pace:
    """The rate that clients share."""

    def __init__(self, bytes_per_second: float) -> None:
        """Let so many bytes a second pass."""
        self._rate = bytes_per_second
        # When everything that passed so far would be through at this rate.
        self._through = -1.0

    async def wait(self, size: int) -> None:
        """Wait until `size` bytes may be sent."""
        now = trio.current_time()
        self._through = max(self._through, now - BURST_SECONDS) + size / self._rate
        await trio.sleep_until(self._through)


class PacedLink:
    """A link on which nothing is sent faster than the pace allows."""

    def __init__(self, link: Link, pace: Pace) -> None:
        """Take over a link."""
        self._link = link
        self._pace = pace
        self.peer = link.peer
        # What waited for its turn and is not sent yet.
        self._allowed = 0

    async def start(self) -> None:
        """Do what comes before the first byte of HTTP."""
        await self._link.start()

    async def receive(self) -> bytes:
        """Return what has come, after waiting for it; b"" at the end."""
        return await self._link.receive()

    def send_now(self, data: bytes) -> int:  # noqa: ARG002 - as Link has it
        """Send nothing: everything waits its turn."""
        return 0

    async def turn(self, size: int) -> int:
        """Wait until a slice may be sent; return how long it is."""
        if not self._allowed:
            allowed = min(await self._link.turn(size), SLICE_BYTES)
            await self._pace.wait(allowed)
            self._allowed = allowed
        return min(size, self._allowed)

    async def send_some(self, data: memoryview) -> int:
        """Send something of what `turn` has allowed; return how many bytes."""
        sent = await self._link.send_some(data)
        self._allowed -= sent
        return sent

    async def send(self, data: bytes) -> None:
        """Send all of it at once: it is not the body of an answer."""
        await self._link.send(data)

    async def send_end(self) -> None:
        """Tell the client that nothing more will come."""
        await self._link.send_end()

    def close(self) -> None:
        """Let go of the socket at once."""
        self._link.close()
