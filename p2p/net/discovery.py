"""Finding neighbours, for trio: says what we hold, tells who comes, changes and goes.

The responders follow the interfaces as the kernel reports them. zeroconf and asyncio
are loaded when `open_discovery` is entered, not before: a program that is told not to
look for neighbours never pays for them.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

import trio

from p2p.errors import Error, TransportError
from p2p.net.advert import Advert, InstanceId, encode
from p2p.net.interfaces import Choice, Interface, choose
from p2p.net.neighbours import (
    Announcement,
    Heard,
    Ignored,
    Lost,
    Neighbour,
    Neighbours,
    PeerEvent,
    label,
)
from p2p.net.netlink import KernelInterfaces

_log = logging.getLogger(__name__)

# An interface that could not be opened is tried again, change or no change.
RETRY_SECONDS: Final = 60.0
# A neighbour that could not be dialled is asked for no more often than this.
ASK_AGAIN_SECONDS: Final = 30.0
MAX_ASKING: Final = 4
Tell = Callable[[Heard | Lost], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this agent behaves on its links; times in seconds.

    Attributes:
        choice: which interfaces.
        start_jitter: the first announcement on a link waits a random time up to this,
            for the day when all devices of a site start at once; questions do not.
        update_jitter: the same before each further one, for the moment when all of
            them complete the same commit.
        update_interval: least time between two; RFC 6762 §8.4 allows ten a minute.

    """

    choice: Choice = field(default_factory=Choice)
    start_jitter: float = 1.0
    update_jitter: float = 1.0
    update_interval: float = 6.0


class InterfaceSource(Protocol):
    """Where the interfaces are read: `KernelInterfaces`."""

    def read(self) -> tuple[Interface, ...]:
        """Return all interfaces as they are now."""

    async def wait(self) -> None:
        """Return when they have changed."""

    def close(self) -> None:
        """Stop listening."""


class DoorLike(Protocol):
    """Saying and hearing on links: `p2p.net.mdns_door.Door`."""

    @property
    def links(self) -> Sequence[int]:
        """The interfaces that are heard, by index."""

    async def open(self, interface: Interface) -> None:
        """Begin to hear on an interface; TransportError if that cannot be."""

    async def close(self, link: int) -> None:
        """Say goodbye on an interface and stop hearing there."""

    async def announce(self, link: int, announcement: Announcement | None) -> None:
        """Say something on an interface; None: goodbye. TransportError if not."""

    async def ask(self, link: int, name: str) -> None:
        """Ask whether a service is still there. TransportError if not."""

    def counts(self) -> dict[str, int]:
        """Return how many packets came and were dropped, by short reason."""


MakeDoor = Callable[[InstanceId, Tell], AbstractAsyncContextManager[DoorLike]]


class Advertiser:
    """Says what this agent holds, as often as is polite."""

    def __init__(
        self, door: DoorLike, lock: trio.Lock, settings: Settings, rng: random.Random
    ) -> None:
        """Say things through a door, which the lock keeps for one task."""
        self._door = door
        self._lock = lock
        self._settings = settings
        self._rng = rng
        self._wanted: Announcement | None = None
        self._said: Announcement | None = None
        self._changed = trio.Event()

    def publish(self, advert: Advert, port: int) -> None:
        """Say this from now on; soon, and only the last of several.

        Raises:
            LimitError: the advert is too large.

        """
        self._want(Announcement(port, encode(advert)))

    def withdraw(self) -> None:
        """Say goodbye, and nothing more."""
        self._want(None)

    def _want(self, announcement: Announcement | None) -> None:
        self._wanted = announcement
        self._changed.set()

    async def run(self) -> None:
        """Say what is wanted until cancelled."""
        jitter = self._settings.start_jitter
        while True:
            await self._changed.wait()
            await trio.sleep(self._rng.uniform(0, jitter))
            self._changed = trio.Event()
            if self._wanted != self._said:
                self._said = self._wanted
                await self._say_everywhere()
                await trio.sleep(self._settings.update_interval)
            jitter = self._settings.update_jitter

    async def _say_everywhere(self) -> None:
        async with self._lock, trio.open_nursery() as nursery:
            for link in self._door.links:
                nursery.start_soon(self._say, link)

    async def _say(self, link: int) -> None:
        try:
            await self._door.announce(link, self._said)
        except TransportError as error:
            _log.warning("%s; %s", error, error.hint)

    async def greet(self, link: int) -> None:
        """Say on a new link what was said on the others; the caller has the lock.

        All devices of a switch that comes back see a new link at the same moment.
        """
        if self._said is not None:
            await trio.sleep(self._rng.uniform(0, self._settings.start_jitter))
            await self._say(link)


class Browser:
    """Tells who comes, changes and goes: `async for event in browser`.

    Attributes:
        ignored: how often something that was heard was ignored, by reason.
        reasons: the last of these, as sentences.

    """

    def __init__(self, neighbours: Neighbours) -> None:
        """Tell about these neighbours."""
        self._neighbours = neighbours
        self._news = trio.Event()
        neighbours.on_news = self._wake
        self.ignored: Counter[Ignored] = neighbours.ignored
        self.reasons = neighbours.reasons

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PeerEvent:
        await trio.lowlevel.checkpoint_if_cancelled()  # there are never many
        while (event := self._neighbours.next_event()) is None:
            self._news = trio.Event()
            await self._news.wait()
        return event

    def peers(self) -> tuple[Neighbour, ...]:
        """Return everybody who is there now."""
        return tuple(self._neighbours)

    def confirm(self, instance: InstanceId) -> None:
        """Note that a session proved a neighbour real, by the instance in its HELLO.

        Whoever floods the link with others cannot push it out then.
        """
        self._neighbours.confirm(instance)

    def _wake(self) -> None:
        self._news.set()


class Discovery:
    """Both halves and what they stand on; `open_discovery` makes one.

    Attributes:
        advertiser: says what we hold.
        browser: tells who is there.
        interfaces: those that neighbours are looked for on now.
        failed: why chosen interfaces could not be opened, by name.

    """

    def __init__(
        self,
        neighbours: Neighbours,
        door: DoorLike,
        source: InterfaceSource,
        settings: Settings,
        rng: random.Random,
    ) -> None:
        """Begin with no interface; `refresh` and `follow` open them."""
        self._neighbours = neighbours
        self._door = door
        self._source = source
        self._settings = settings
        self._lock = trio.Lock()
        self._asked: dict[InstanceId, float] = {}
        self._asking = trio.CapacityLimiter(MAX_ASKING)
        self.advertiser = Advertiser(door, self._lock, settings, rng)
        self.browser = Browser(neighbours)
        self.interfaces: tuple[Interface, ...] = ()
        self.failed: dict[str, str] = {}

    def __repr__(self) -> str:
        names = " ".join(interface.name for interface in self.interfaces)
        return f"<Discovery on {names or 'nothing'}: {self._neighbours!r}>"

    def reaches(self, address: str) -> bool:
        """Whether an address, with or without scope, is on a chosen link."""
        host, _, scope = address.partition("%")
        return any(
            interface.reaches(ipaddress.ip_address(host))
            for interface in self.interfaces
            if scope in ("", interface.name)
        )

    def counts(self) -> dict[str, int]:
        """Return how many packets came and were dropped, by short reason."""
        return self._door.counts()

    async def unreachable(self, instance: InstanceId) -> None:
        """Ask by mDNS for a neighbour that could not be dialled.

        If it does not answer within 3 s it is gone, and the browser tells so
        (RFC 6762 §10.4); without this its records live for up to 19 minutes.
        """
        now = trio.current_time()
        if now - self._asked.get(instance, -ASK_AGAIN_SECONDS) < ASK_AGAIN_SECONDS:
            return
        self._asked = {
            asked: when
            for asked, when in self._asked.items()
            if now - when < ASK_AGAIN_SECONDS
        } | {instance: now}
        async with self._asking:
            for link in self._neighbours.links_of(instance):
                if link in self._door.links:
                    await self._ask(link, label(instance))

    async def _ask(self, link: int, name: str) -> None:
        try:
            await self._door.ask(link, name)
        except TransportError as error:
            _log.warning("%s; %s", error, error.hint)

    async def refresh(self) -> None:
        """Open and close responders so that they fit the interfaces."""
        chosen = choose(self._source.read(), self._settings.choice)
        async with self._lock:
            for interface in self.interfaces:
                if interface not in chosen:
                    await self._door.close(interface.index)
            kept = [i for i in self.interfaces if i in chosen]
            self._use(kept)
            self.failed = {}
            for interface in chosen:
                if interface not in kept:
                    await self._open(interface)

    async def _open(self, interface: Interface) -> None:
        before = self.interfaces
        self._use([*before, interface])  # first, since it may hear at once
        try:
            await self._door.open(interface)
        except TransportError as error:
            self._use(before)
            self.failed[interface.name] = str(error)
            _log.warning("%s; %s", error, error.hint)
        else:
            await self.advertiser.greet(interface.index)

    def _use(self, interfaces: Sequence[Interface]) -> None:
        self.interfaces = tuple(interfaces)
        self._neighbours.set_links(self.interfaces)

    async def follow(self) -> None:
        """Keep up with the interfaces until cancelled."""
        behind = False
        while True:
            again = RETRY_SECONDS if self.failed else math.inf
            try:
                if not behind:
                    with trio.move_on_after(again):
                        await self._source.wait()
                await self.refresh()
                behind = False
            except Error as error:
                # What is open goes on; nobody would be served by giving up.
                _log.warning("%s; %s", error, error.hint)
                behind = True
                await trio.sleep(RETRY_SECONDS)


@asynccontextmanager
async def open_discovery(
    own: InstanceId,
    settings: Settings = Settings(),
    *,
    source: InterfaceSource | None = None,
    make_door: MakeDoor | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Discovery]:
    """Look for neighbours for the time of the block; goodbye is said at its end.

    Args:
        own: instance of this agent, the one in its HELLO.
        settings: how to behave.
        source: where interfaces are read, the kernel by default.
        make_door: how to say and hear, mDNS by default.
        rng: for jitter.

    Raises:
        TransportError: the interfaces cannot be read.

    """
    if make_door is None:
        from p2p.net.mdns_door import open_door

        make_door = open_door
    source = source or await KernelInterfaces.open()
    neighbours = Neighbours(own)
    try:
        async with make_door(own, neighbours.hear) as door:
            discovery = Discovery(
                neighbours, door, source, settings, rng or random.SystemRandom()
            )
            async with trio.open_nursery() as nursery:
                await discovery.refresh()
                nursery.start_soon(discovery.follow)
                nursery.start_soon(discovery.advertiser.run)
                yield discovery
                nursery.cancel_scope.cancel()
    finally:
        source.close()
