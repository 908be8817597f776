"""mDNS with real packets on the loopback: no root, beside whoever else is there."""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_interface

import pytest
import trio

from p2p.errors import TransportError
from p2p.net import mdns
from p2p.net.advert import AdvertKey, InstanceId, encode
from p2p.net.interfaces import Interface
from p2p.net.mdns_door import Door, open_door
from p2p.net.neighbours import Announcement, Heard, Lost, label
from p2p.net.netlink import read_interfaces
from tests.net import dns
from tests.net.dns import throw

PATIENCE_SECONDS = 30
KEY = AdvertKey.open()


@pytest.fixture
def lo() -> Interface:
    return next(i for i in read_interfaces() if i.is_loopback)


def some_instance() -> InstanceId:
    """One that no other test has, since all hear each other."""
    return InstanceId(os.urandom(16))


class Ear:
    """Keeps what was heard of each label, for tests to wait for."""

    def __init__(self) -> None:
        self.last: dict[str, Heard | Lost] = {}
        self._news = trio.Event()

    def hear(self, said: Heard | Lost) -> None:
        self.last[said.label] = said
        self._news.set()

    async def until(
        self, name: str, fits: Callable[[Heard | Lost], bool]
    ) -> Heard | Lost:
        with trio.fail_after(PATIENCE_SECONDS):
            while name not in self.last or not fits(self.last[name]):
                self._news = trio.Event()
                await self._news.wait()
        return self.last[name]

    async def there(self, who: InstanceId, port: int) -> Heard:
        said = await self.until(
            label(who), lambda s: isinstance(s, Heard) and s.port == port
        )
        assert isinstance(said, Heard)
        return said

    async def gone(self, who: InstanceId) -> None:
        await self.until(label(who), lambda said: isinstance(said, Lost))


@asynccontextmanager
async def opened(
    lo: Interface, own: InstanceId | None = None
) -> AsyncIterator[tuple[Door, Ear]]:
    ear = Ear()
    async with open_door(own or some_instance(), ear.hear) as door:
        await door.open(lo)
        yield door, ear


def announcement(who: InstanceId, port: int) -> Announcement:
    return Announcement(port, encode(KEY.make(who)))


async def test_what_one_says_another_hears(lo: Interface) -> None:
    who = some_instance()
    async with opened(lo) as (_, ear):
        async with opened(lo, who) as (door, own_ear):
            await door.announce(lo.index, announcement(who, 1001))
            heard = await ear.there(who, 1001)
            assert heard.addresses == ("127.0.0.1",)
            assert heard.link == lo.index
            assert heard.txt == announcement(who, 1001).txt
            await own_ear.there(who, 1001)
            await door.announce(lo.index, announcement(who, 1002))
            await ear.there(who, 1002)
            await door.announce(lo.index, None)
            await ear.gone(who)
            await door.announce(lo.index, None)
            await door.announce(lo.index, announcement(who, 1003))
            await ear.there(who, 1003)
            assert door.counts()["packets"] > 0
        await ear.gone(who)


async def test_who_comes_later_asks_and_is_told(lo: Interface) -> None:
    who = some_instance()
    async with opened(lo, who) as (door, _):
        await door.announce(lo.index, announcement(who, 1001))
        async with opened(lo) as (_, ear):
            await ear.there(who, 1001)


async def test_a_neighbour_is_asked_for_and_forgotten_if_it_is_silent(
    lo: Interface,
) -> None:
    who, dead = some_instance(), some_instance()
    async with opened(lo) as (door, ear), opened(lo, who) as (other, _):
        await other.announce(lo.index, announcement(who, 1001))
        await ear.there(who, 1001)
        ear.last.clear()
        await door.ask(lo.index, label(who))
        await ear.there(who, 1001)
        announce_once(dead, port=1002)
        await ear.there(dead, 1002)
        await door.ask(lo.index, label(dead))
        await ear.gone(dead)
        announce_once(dead, port=1002)
        await ear.there(dead, 1002)


def announce_once(who: InstanceId, *, port: int) -> None:
    """What an agent says that dies at once: one answer, no goodbye."""
    throw("127.0.0.1", dns.announce(who, "127.0.0.1", port=port))


async def test_what_an_answer_lacks_is_asked_for(lo: Interface) -> None:
    who = some_instance()
    async with opened(lo) as (_, ear), opened(lo, who) as (door, _):
        throw("127.0.0.1", dns.pointer_only(dns.service(label(who).encode())))
        await door.announce(lo.index, announcement(who, 1001))
        await ear.there(who, 1001)


async def test_liars_make_us_ask_only_so_much(
    lo: Interface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mdns, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(mdns, "MAX_QUESTIONS", 2)
    monkeypatch.setattr(mdns, "MAX_WAITING", 5)
    async with opened(lo) as (door, ear):
        responder = door._responders[lo.index][0]
        liars = [some_instance() for _ in range(20)]
        names = [dns.service(label(liar).encode()) for liar in liars]
        throw("127.0.0.1", *map(dns.pointer_only, names))
        announce_once(some_instance(), port=1001)
        most = 0
        with trio.fail_after(PATIENCE_SECONDS):
            while not most or responder._questions:
                most = max(most, len(responder._questions))
                assert len(responder._waiting) <= 5
                await trio.sleep(0.01)
        assert most <= 2
        assert not ear.last.keys() & set(map(label, liars))


async def test_broken_packets_hurt_nobody(lo: Interface) -> None:
    who = some_instance()
    good = dns.service(b"x" * 8)
    async with opened(lo) as (_, ear):
        throw(
            "127.0.0.1",
            b"",
            b"_ostree-p2p",
            b"\0" * 12 + b"_ostree-p2p",
            dns.pointer_only(dns.SERVICE),
            dns.pointer_only(dns.name(b"other", b"_http", b"_tcp", b"local")),
            dns.pointer_only(dns.name(b"evil", b"x_ostree-p2p", b"_tcp", b"local")),
            dns.pointer_only(good),
            dns.pointer_only(good)[:-9],
            dns.pointer_only(b"\xc0\x0c"),
            dns.pointer_only(b"\x3f" + b"\xff" * 63 + b"\xc0\x0c"),
            dns.announce(some_instance(), "127.0.0.1", txt=b"\xff"),
            dns.announce(some_instance(), "127.0.0.1", first="a\tb"),
            b"_ostree-p2p" + os.urandom(600),
        )
        announce_once(who, port=1001)
        await ear.there(who, 1001)


async def test_other_people_s_services_are_not_kept(lo: Interface) -> None:
    who = some_instance()
    async with opened(lo) as (door, ear):
        printers = dns.name(b"_printer", b"_tcp", b"local")
        for n in range(50):
            alias = dns.name(b"printer %d" % n)[:-1] + printers
            said = dns.record(printers, dns.PTR, alias, ttl=4500)
            throw("127.0.0.1", dns.response(said))
        announce_once(who, port=1001)
        await ear.there(who, 1001)
        names = door._responders[lo.index][0]._zeroconf.cache.names()
        assert not [name for name in names if "printer" in name]
        assert door.counts()["not about us"] >= 50


async def test_the_library_s_errors_are_ours(lo: Interface) -> None:
    who = some_instance()
    async with opened(lo, who) as (door, _):
        await door.announce(lo.index, announcement(who, 1001))
        door._responders[lo.index][0]._said = None
        with pytest.raises(TransportError, match="ServiceNameAlreadyRegistered"):
            await door.announce(lo.index, announcement(who, 1001))


async def test_avahi_s_way_to_share_the_port_works_with_ours(lo: Interface) -> None:
    # As avahi-daemon opens it: SO_REUSEADDR and SO_REUSEPORT on the wildcard.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("", 5353))
        who = some_instance()
        async with opened(lo, who) as (door, ear):
            await door.announce(lo.index, announcement(who, 1001))
            await ear.there(who, 1001)


async def test_an_interface_that_is_gone_is_named() -> None:
    gone = Interface(
        name="eth9",
        index=12345,
        flags=0x1043,
        hardware=1,
        networks=(ip_interface("192.0.2.1/24"),),
    )
    async with open_door(some_instance(), Ear().hear) as door:
        with pytest.raises(TransportError, match="mDNS on eth9"):
            await door.open(gone)
        v6 = Interface(
            name="eth9",
            index=12345,
            flags=0x1043,
            hardware=1,
            networks=(ip_interface("fe80::1/64"),),
        )
        with pytest.raises(TransportError, match="mDNS on eth9"):
            await door.open(v6)
