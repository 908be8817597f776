"""The door to mDNS: all responders of this device, seen from trio."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio
from zeroconf import Error as ZeroconfError

from p2p.errors import TransportError
from p2p.net.advert import InstanceId
from p2p.net.bridge import Bridge, open_bridge
from p2p.net.interfaces import Interface
from p2p.net.mdns import (
    GOODBYE_SECONDS,
    MAX_NEWS,
    NEWS_SECONDS,
    Responder,
    Role,
    Tell,
    roles,
)
from p2p.net.neighbours import Announcement, Heard, Lost

_log = logging.getLogger(__name__)


class Door:
    """All responders, seen from trio; `open_door` makes one."""

    def __init__(self, bridge: Bridge, own: InstanceId, hear: Tell) -> None:
        """Use the asyncio thread; `hear` is called in trio's thread."""
        self._bridge = bridge
        self._own = own
        self._hear = hear
        self._responders: dict[int, list[Responder]] = {}
        self._lock = threading.Lock()
        self._news: dict[tuple[int, str], Heard | Lost] = {}

    async def open(self, interface: Interface) -> None:
        """Begin to hear on an interface; TransportError if that cannot be."""
        # Cancelled half-way it would leave sockets that nobody closes.
        with trio.CancelScope(shield=True):
            found: list[Responder] = []
            for role in roles(interface):
                try:
                    found.append(await self._open(interface, role))
                except TransportError as error:
                    if not found:
                        raise
                    _log.warning("hosts without IPv4 are not found: %s", error)
            self._responders[interface.index] = found
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _open(self, interface: Interface, role: Role) -> Responder:
        return await self._bridge.run(
            Responder.open, interface, self._own, self._tell, role
        )

    async def close(self, link: int) -> None:
        """Say goodbye on an interface and stop hearing there."""
        for responder in self._responders.pop(link):
            await self._bridge.run(responder.close)

    async def announce(self, link: int, announcement: Announcement | None) -> None:
        """Say something on an interface; None: goodbye. TransportError if not."""
        with _as_ours():
            for responder in self._responders[link]:
                await self._bridge.run(responder.announce, announcement)

    async def ask(self, link: int, name: str) -> None:
        """Ask on an interface whether a service is still there."""
        speaker, *others = self._responders[link]
        with _as_ours():
            for responder in (speaker, *others):
                if responder is speaker or responder.knows(name):
                    await self._bridge.run(responder.ask, name)

    @property
    def links(self) -> tuple[int, ...]:
        """The interfaces that are heard, by index."""
        return tuple(self._responders)

    def counts(self) -> dict[str, int]:
        """Return how many packets came and were dropped, by short reason."""
        whole: Counter[str] = Counter()
        for responders in list(self._responders.values()):
            for responder in responders:
                whole.update(responder.counts)
        return dict(whole)

    def _tell(self, said: Heard | Lost) -> None:
        """Keep the last word about each service until trio takes it."""
        if isinstance(said, Lost):
            responders = self._responders.get(said.link, [])
            if any(responder.knows(said.label) for responder in responders):
                return  # it is still there in the other family
        with self._lock:
            first = not self._news
            if len(self._news) < MAX_NEWS:
                self._news[said.link, said.label] = said
        if first:
            loop = asyncio.get_running_loop()
            loop.call_later(NEWS_SECONDS, self._bridge.post, self._take)

    def _take(self) -> None:
        with self._lock:
            news, self._news = self._news, {}
        for said in news.values():
            self._hear(said)


@contextmanager
def _as_ours() -> Iterator[None]:
    """Turn the library's errors in the block into ours."""
    try:
        yield
    except ZeroconfError as error:
        raise TransportError(f"mDNS: {type(error).__name__} {error}") from error


@asynccontextmanager
async def open_door(own: InstanceId, hear: Tell) -> AsyncIterator[Door]:
    """Run the asyncio thread with responders for the time of the block."""
    async with open_bridge() as bridge:
        door = Door(bridge, own, hear)
        try:
            yield door
        finally:
            with trio.move_on_after(GOODBYE_SECONDS, shield=True):
                async with trio.open_nursery() as nursery:
                    for link in door.links:
                        nursery.start_soon(door.close, link)
