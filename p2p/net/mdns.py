"""mDNS by python-zeroconf, in the asyncio thread.

Each chosen interface has a responder with sockets of its own, so that what is heard
belongs to one link, what is said names only that link's addresses, and an interface
that goes takes its responder with it. A gate stands before each responder: packets
from off the link (RFC 6762 §11), packets that are not about our service, and floods
are dropped before they are parsed or kept.

Port 5353 is shared with avahi-daemon and others (SO_REUSEADDR and SO_REUSEPORT).
"""

from __future__ import annotations

import asyncio
import asyncio.trsock
import contextlib
import math
import socket
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Final, Self, cast

from zeroconf import (
    BadTypeInNameException,
    DNSQuestionType,
    IPVersion,
)
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from p2p.errors import TransportError
from p2p.net.advert import InstanceId
from p2p.net.gate import Gate
from p2p.net.interfaces import Interface
from p2p.net.mdns_watch import News, Watch
from p2p.net.neighbours import Announcement, Heard, Lost, label

SERVICE: Final = "_ostree-p2p._tcp.local."
# RFC 6762 §10: records with a host's name live 120 s, others 75 min. The others live
# shorter here, so that who lost power is forgotten in 19 min; python-zeroconf, and so
# most of our neighbours, takes no lifetime of PTR below that for its own.
HOST_SECONDS: Final = 120
OTHER_SECONDS: Final = 1125
MAX_ADDRESSES: Final = 4
# RFC 6762 §8.3: twice, in case one is lost. The library would say it three times.
REPEAT_SECONDS: Final = 1.0
# A whole site that starts at once must not be lost while this process waits its turn;
# the kernel grants as much of it as it likes.
BUFFER_BYTES: Final = 1 << 20
# Asking for what an answer lacked multicasts, so a liar must not make us ask much.
MAX_QUESTIONS: Final = 16
MAX_WAITING: Final = 256
MAX_NEWS: Final = 4096
# News is handed over together: with each the two threads would wait for each other.
NEWS_SECONDS: Final = 0.03
# Of packets that came together so many are read at once.
READ_AT_ONCE: Final = 64
MAX_PACKET_BYTES: Final = 9000
# How often a host asks that does not hear others come.
MINORITY_SECONDS: Final = 60.0
# Goodbyes are said three times within a quarter of a second.
GOODBYE_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 3.0
REPLACED_SECONDS: Final = 1.2
Tell = Callable[[Heard | Lost], None]


class Responder:
    """Says and hears on one interface; everything happens in the asyncio thread.

    Attributes:
        counts: packets that came, and what was dropped, by short reason.

    """

    def __init__(
        self,
        mdns: AsyncZeroconf,
        interface: Interface,
        own: InstanceId,
        tell: Tell,
        role: Role,
    ) -> None:
        """Take over the library's object, which has started; see `open`."""
        self._role = role
        self._mdns = mdns
        self._zeroconf = mdns.zeroconf
        self._interface = interface
        self._label = label(own)
        self._tell = tell
        self._said: AsyncServiceInfo | None = None
        self._repeat: asyncio.TimerHandle | None = None
        self._questions: dict[str, asyncio.Task[bool]] = {}
        self._waiting: dict[str, None] = {}
        self._again: dict[str, asyncio.TimerHandle] = {}
        gate = Gate(interface, self._label, lambda: bool(self._questions))
        self.counts = gate.counts
        self._stand_before(gate)
        # A reply to this machine's address may go to another program on port 5353,
        # so answers are asked for by multicast, which all of them hear.
        self._watch = Watch(
            mdns.zeroconf,
            SERVICE,
            self._changed,
            asks=role is not Role.ANSWERS,
            every=MINORITY_SECONDS if role is Role.MINORITY else math.inf,
        )

    @classmethod
    async def open(
        cls, interface: Interface, own: InstanceId, tell: Tell, role: Role
    ) -> Self:
        """Begin to hear on an interface; `tell` gets what is heard.

        Raises:
            TransportError: the interface does not let us.

        """
        source = _address(interface) if role is Role.SPEAKS else interface.index
        version = IPVersion.V6Only if isinstance(source, int) else IPVersion.V4Only
        try:
            _check_is_here(source)  # the library loses a socket where it fails
            mdns = AsyncZeroconf(interfaces=[source], ip_version=version)
        except (OSError, RuntimeError) as error:  # gone, or forbidden
            raise TransportError(
                f"mDNS on {interface.name}: {error}",
                hint="Another program may hold UDP port 5353 for itself alone.",
            ) from error
        await mdns.zeroconf.async_wait_for_start()
        return cls(mdns, interface, own, tell, role)

    def _stand_before(self, gate: Gate) -> None:
        """Put the gate between the sockets and the library."""
        for reader in self._zeroconf.engine.readers:
            reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            # Answers must come with this TTL, by unicast too (RFC 6762 §11).
            if reader.is_ipv6:
                hops = socket.IPV6_UNICAST_HOPS
                reader.sock.setsockopt(socket.IPPROTO_IPV6, hops, 255)
            else:
                reader.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
            inner = cast("asyncio.DatagramProtocol", reader.transport.get_protocol())
            reader.transport.set_protocol(_Guarded(gate, inner, reader.sock))

    async def announce(self, announcement: Announcement | None) -> None:
        """Say this from now on, instead of what was said before; None: goodbye."""
        before = self._said
        if announcement is None:
            self._said = None
            self._hush()
            if before is not None and self._role is Role.ANSWERS:
                self._zeroconf.registry.async_remove(before)
            elif before is not None:
                await (await self._mdns.async_unregister_service(before))
            return
        # 128 random bits need no probing for others of the same name.
        self._said = info = self._info(announcement)
        if before is not None:
            self._zeroconf.registry.async_update(info)
        else:
            self._zeroconf.registry.async_add(info)
        if self._role is Role.ANSWERS:
            return
        self._announce(info)
        loop = asyncio.get_running_loop()
        self._hush()
        self._repeat = loop.call_later(REPEAT_SECONDS, self._announce, info)

    def _hush(self) -> None:
        """Do not say again what was said before."""
        if self._repeat is not None:
            self._repeat.cancel()

    def _announce(self, info: AsyncServiceInfo) -> None:
        self._zeroconf.async_send(
            self._zeroconf.generate_service_broadcast(info, ttl=None)
        )

    def knows(self, name: str) -> bool:
        """Whether a service is there, as far as was heard."""
        cache = self._zeroconf.cache
        whole = f"{name}.{SERVICE}"
        return cache.current_entry_with_name_and_alias(SERVICE, whole) is not None

    async def ask(self, name: str) -> None:
        """Ask whether a service is still there; it is told again, or told lost."""
        whole = f"{name}.{SERVICE}"
        cache = self._zeroconf.cache
        cache.async_remove_records(list(cache.async_entries_with_name(whole)))
        if not await self._question(whole):
            pointer = cache.current_entry_with_name_and_alias(SERVICE, whole)
            if pointer is not None:
                cache.async_remove_records([pointer])
            self._tell(Lost(link=self._interface.index, label=name))

    async def close(self) -> None:
        """Say goodbye and let go of the interface."""
        self._waiting.clear()
        self._hush()
        for timer in self._again.values():
            timer.cancel()
        for task in list(self._questions.values()):
            task.cancel()
        self._watch.close()
        if self._role is Role.ANSWERS:
            await self.announce(None)
        await self._mdns.async_close()

    def _info(self, announcement: Announcement) -> AsyncServiceInfo:
        return AsyncServiceInfo(
            SERVICE,
            f"{self._label}.{SERVICE}",
            port=announcement.port,
            properties=announcement.txt,
            server=f"{self._label}.local.",
            host_ttl=HOST_SECONDS,
            other_ttl=OTHER_SECONDS,
            parsed_addresses=_own_addresses(self._interface),
        )

    def _changed(self, name: str, news: News) -> None:
        """Called for each change of a service of our type."""
        if news is News.LOST:
            self._tell(Lost(link=self._interface.index, label=_first(name)))
            return
        info = _empty_info(name)
        if info is None:
            self.counts["a name that is none"] += 1
        elif info.load_from_cache(self._zeroconf):
            self._tell(self._heard(info))
            if news is News.CHANGED:
                self._look_again(name)
        elif name not in self._questions and len(self._waiting) < MAX_WAITING:
            self._waiting[name] = None
            self._ask_next()

    def _look_again(self, name: str) -> None:
        """Look once more when what a new record replaced is gone from the cache.

        The library keeps such a record for a second (RFC 6762 §10.2) and does not
        say when it drops it.
        """

        def look() -> None:
            del self._again[name]
            info = AsyncServiceInfo(SERVICE, name)
            if info.load_from_cache(self._zeroconf):
                self._tell(self._heard(info))

        if name not in self._again and len(self._again) < MAX_NEWS:
            loop = asyncio.get_running_loop()
            self._again[name] = loop.call_later(REPLACED_SECONDS, look)

    def _ask_next(self) -> None:
        """Ask for the next service whose records did not all come at once."""
        while self._waiting and len(self._questions) < MAX_QUESTIONS:
            name = next(iter(self._waiting))
            del self._waiting[name]
            task = asyncio.ensure_future(self._question(name))
            self._questions[name] = task
            task.add_done_callback(partial(self._asked, name))

    def _asked(self, name: str, task: asyncio.Task[bool]) -> None:
        del self._questions[name]
        if not task.cancelled():
            task.result()  # a bug is reported by the loop
        self._ask_next()

    async def _question(self, name: str) -> bool:
        """Ask for a service by name; whether it answered, which is then told."""
        info = _empty_info(name)
        if info is None:
            return False
        answered = await info.async_request(
            self._zeroconf, ANSWER_SECONDS * 1000, DNSQuestionType.QM
        )
        if answered:
            self._tell(self._heard(info))
        return answered

    def _heard(self, info: AsyncServiceInfo) -> Heard:
        return Heard(
            link=self._interface.index,
            label=_first(info.name),
            port=info.port or 0,
            addresses=tuple(info.parsed_addresses()[:MAX_ADDRESSES]),
            txt=info.text,
        )


class _Guarded(asyncio.DatagramProtocol):
    """The library's protocol behind a gate.

    asyncio turns its loop once a packet; with a hundred of them that is most of the
    work, so all that came are taken when one is.
    """

    def __init__(
        self,
        gate: Gate,
        inner: asyncio.DatagramProtocol,
        sock: asyncio.trsock.TransportSocket | socket.socket,
    ) -> None:
        self._gate = gate
        self._inner = inner
        self._socket = sock.dup()
        self._now = asyncio.get_running_loop().time

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self._pass(data, addr)
        with contextlib.suppress(BlockingIOError):
            for _ in range(READ_AT_ONCE):
                self._pass(*self._socket.recvfrom(MAX_PACKET_BYTES))

    def _pass(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        scope = int(addr[3]) if len(addr) == 4 else 0
        if self._gate.passes(data, str(addr[0]), scope, self._now()):
            self._inner.datagram_received(data, addr)

    def error_received(self, exc: Exception) -> None:
        self._inner.error_received(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket.close()
        self._inner.connection_lost(exc)


class Role(Enum):
    """What a responder does on its interface.

    One family is enough to say things in, since an answer names the addresses of both,
    and both would double the packets on the link. So that a host that has IPv6 alone is
    not left out, all listen there and answer it, and it asks ever again: it does not
    hear who comes.
    """

    SPEAKS = "asks and announces itself in IPv4"
    ANSWERS = "hears and answers in IPv6, and says nothing unasked"
    MINORITY = "asks and announces itself in IPv6, for there is no IPv4"


def roles(interface: Interface) -> tuple[Role, ...]:
    """Return which responders an interface has, the one that speaks first."""
    versions = {n.version for n in interface.networks if interface.reaches(n.ip)}
    if 4 not in versions:
        return (Role.MINORITY,)
    if 6 not in versions or interface.is_loopback:
        return (Role.SPEAKS,)
    return (Role.SPEAKS, Role.ANSWERS)


def _address(interface: Interface) -> str:
    """Return the IPv4 address to speak from."""
    return next(str(n.ip) for n in interface.networks if n.version == 4)


def _check_is_here(source: str | int) -> None:
    """Raise OSError if the address or the interface is not this machine's."""
    if isinstance(source, int):
        socket.if_indextoname(source)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))


def _own_addresses(interface: Interface) -> list[str]:
    """Return what neighbours on the link may dial, the most useful first."""
    ranked = sorted(
        (n.ip for n in interface.networks if interface.reaches(n.ip)),
        key=lambda ip: (ip.version, ip.is_link_local == (ip.version == 4)),
    )
    return [str(ip) for ip in ranked[:MAX_ADDRESSES]]


def _first(name: str) -> str:
    """Return the instance's label of a service's name."""
    return name[: -len(SERVICE) - 1]


def _empty_info(name: str) -> AsyncServiceInfo | None:
    """Return the library's object for a service to look up; None for a bad name."""
    if not name.lower().endswith("." + SERVICE):
        return None
    try:
        return AsyncServiceInfo(SERVICE, name)
    except BadTypeInNameException:
        return None
