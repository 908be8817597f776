"""A LAN in memory: the door to mDNS and the source of interfaces, without packets."""

import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from p2p.errors import TransportError
from p2p.net.advert import InstanceId
from p2p.net.discovery import DoorLike, MakeDoor, Tell
from p2p.net.interfaces import Interface
from p2p.net.neighbours import Announcement, Heard, Lost, label


def interface(index: int, *networks: str, name: str = "") -> Interface:
    return Interface(
        name=name or f"eth{index}",
        index=index,
        flags=0x1043,
        hardware=1,
        networks=tuple(map(ipaddress.ip_interface, networks)),
    )


class Interfaces:
    """The interfaces of one machine, which a test changes."""

    def __init__(self, *interfaces: Interface) -> None:
        self._interfaces = interfaces
        self._changed = trio.Event()
        self.closed = False
        self.failures = 0

    def read(self) -> tuple[Interface, ...]:
        if self.failures:
            self.failures -= 1
            raise TransportError("the network interfaces cannot be read")
        return self._interfaces

    async def wait(self) -> None:
        await self._changed.wait()
        self._changed = trio.Event()

    def close(self) -> None:
        self.closed = True

    def become(self, *interfaces: Interface) -> None:
        self._interfaces = interfaces
        self._changed.set()


@dataclass
class Lan:
    """One link for each index; whoever has it open hears all that is said there.

    Attributes:
        said: everything that was said: when, by whom, on which link, and what.
        broken: links that cannot be opened.
        stuck: links where nothing can be said or asked.
        silent: instances that answer no more.

    """

    doors: list["LanDoor"] = field(default_factory=list)
    said: list[tuple[float, str, int, Announcement | None]] = field(
        default_factory=list
    )
    broken: set[int] = field(default_factory=set)
    stuck: set[int] = field(default_factory=set)
    silent: set[InstanceId] = field(default_factory=set)

    def door(self) -> MakeDoor:
        """What `open_discovery` takes to be on this LAN."""

        @asynccontextmanager
        async def make(own: InstanceId, hear: Tell) -> AsyncIterator[DoorLike]:
            door = LanDoor(self, own, hear)
            self.doors.append(door)
            yield door
            with trio.CancelScope(shield=True):
                for link in list(door.links):
                    await door.close(link)
            self.doors.remove(door)

        return make


class LanDoor:
    """One agent's door to the LAN."""

    def __init__(self, lan: Lan, own: InstanceId, hear: Tell) -> None:
        self._lan = lan
        self._own = own
        self._hear = hear
        self._open: dict[int, Interface] = {}
        self._said: dict[int, Announcement] = {}
        self.asked: list[str] = []

    @property
    def links(self) -> Sequence[int]:
        return tuple(self._open)

    async def open(self, interface: Interface) -> None:
        await trio.lowlevel.checkpoint()
        if interface.index in self._lan.broken:
            raise TransportError(f"mDNS on {interface.name}: broken")
        self._open[interface.index] = interface
        for door in self._lan.doors:
            if interface.index in door._said:
                self._hear(door._heard(interface.index))

    async def close(self, link: int) -> None:
        await self.announce(link, None)
        del self._open[link]

    async def announce(self, link: int, announcement: Announcement | None) -> None:
        await trio.lowlevel.checkpoint()
        if link in self._lan.stuck:
            raise TransportError("mDNS: stuck")
        said: Heard | Lost
        if announcement is None:
            if self._said.pop(link, None) is None:
                return
            said = Lost(link=link, label=label(self._own))
        else:
            self._said[link] = announcement
            said = self._heard(link)
        moment = trio.current_time()
        self._lan.said.append((moment, label(self._own), link, announcement))
        for door in self._lan.doors:
            if link in door._open:
                door._hear(said)

    async def ask(self, link: int, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append(name)
        if link in self._lan.stuck:
            raise TransportError("mDNS: stuck")
        for door in self._lan.doors:
            if label(door._own) == name and door._own not in self._lan.silent:
                self._hear(door._heard(link))
                return
        self._hear(Lost(link=link, label=name))

    def counts(self) -> dict[str, int]:
        return {"packets": len(self._lan.said)}

    def _heard(self, link: int) -> Heard:
        return Heard(
            link=link,
            label=label(self._own),
            port=self._said[link].port,
            addresses=tuple(str(n.ip) for n in self._open[link].networks),
            txt=self._said[link].txt,
        )
