import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from p2p.errors import LimitError
from p2p.net.advert import Advert, AdvertKey, Filter, InstanceId
from p2p.net.discovery import RETRY_SECONDS, Discovery, Settings, open_discovery
from p2p.net.interfaces import Choice, Interface
from p2p.net.neighbours import PeerAppeared, PeerChanged, PeerEvent, PeerGone, label
from tests.net.lan import Interfaces, Lan, interface

KEY = AdvertKey.open()
QUICK = Settings(start_jitter=0, update_jitter=0, update_interval=0.1)
ETH1 = interface(1, "192.0.2.1/24")
ETH2 = interface(2, "198.51.100.1/24", "fe80::1/64")


def instance(number: int) -> InstanceId:
    return InstanceId(number.to_bytes(16))


def advert(number: int, epoch: int = 0) -> Advert:
    return KEY.make(instance(number), epoch=epoch)


@asynccontextmanager
async def agent(
    lan: Lan,
    number: int,
    *interfaces: Interface,
    source: Interfaces | None = None,
    settings: Settings = QUICK,
) -> AsyncIterator[Discovery]:
    own = interfaces or (interface(1, f"192.0.2.{number}/24"),)
    async with open_discovery(
        instance(number),
        settings,
        source=source or Interfaces(*own),
        make_door=lan.door(),
        rng=random.Random(number),
    ) as discovery:
        yield discovery


async def following(discovery: Discovery) -> PeerEvent:
    with trio.fail_after(1000):
        return await anext(discovery.browser)


async def test_agents_find_each_other_whoever_came_first(
    autojump_clock: MockClock,
) -> None:
    lan = Lan()
    async with agent(lan, 1) as one:
        one.advertiser.publish(advert(1), 1001)
        async with agent(lan, 2) as two:
            two.advertiser.publish(advert(2), 1002)
            seen = await following(two)
            assert isinstance(seen, PeerAppeared)
            assert seen.neighbour.instance == instance(1)
            assert seen.neighbour.targets == (("192.0.2.1", 1001),)
            seen = await following(one)
            assert isinstance(seen, PeerAppeared)
            assert seen.neighbour.instance == instance(2)
            assert [n.instance for n in one.browser.peers()] == [instance(2)]
            assert one.browser.ignored.total() == 1, "its own advert"
            assert "our own" in one.browser.reasons[0]
            assert one.counts()["packets"] == 2
        assert await following(one) == PeerGone(instance(2))


async def test_changes_are_seen_and_only_the_last_of_several_is_said(
    autojump_clock: MockClock,
) -> None:
    lan = Lan()
    async with agent(lan, 1) as one, agent(lan, 2) as two:
        one.advertiser.publish(advert(1), 1001)
        await following(two)
        for epoch in range(1, 6):
            one.advertiser.publish(advert(1, epoch), 1001)
        seen = await following(two)
        assert isinstance(seen, PeerChanged)
        assert seen.neighbour.advert.epoch == 5
        one.advertiser.withdraw()
        assert await following(two) == PeerGone(instance(1))
        one.advertiser.publish(advert(1, 6), 1001)
        assert isinstance(await following(two), PeerAppeared)
    assert len(lan.said) == 4 + 1


async def test_announcements_keep_their_distance(autojump_clock: MockClock) -> None:
    lan = Lan()
    settings = Settings(start_jitter=2.0, update_jitter=1.0, update_interval=6.0)
    async with agent(lan, 1, settings=settings) as one:
        began = trio.current_time()
        for epoch in range(100):
            one.advertiser.publish(advert(1, epoch), 1001)
            await trio.sleep(0.5)
    moments = [moment for moment, _, _, said in lan.said if said]
    assert 0 < moments[0] - began < 2
    assert all(6 <= later - sooner < 7.6 for sooner, later in pairwise(moments))


async def test_agents_that_start_together_do_not_speak_together(
    autojump_clock: MockClock,
) -> None:
    lan = Lan()
    settings = Settings(start_jitter=30.0)

    async def live(number: int) -> None:
        async with agent(lan, number, settings=settings) as one:
            one.advertiser.publish(advert(number), 1000)
            await trio.sleep(40)

    async with trio.open_nursery() as nursery:
        for number in range(1, 100):
            nursery.start_soon(live, number)
    seconds = [int(moment) for moment, _, _, said in lan.said if said]
    assert max(seconds.count(second) for second in seconds) < 12


async def test_what_is_said_again_unchanged_is_not_sent(
    autojump_clock: MockClock,
) -> None:
    lan = Lan()
    async with agent(lan, 1) as one:
        for _ in range(3):
            one.advertiser.publish(advert(1), 1001)
            await trio.sleep(10)
        assert len(lan.said) == 1


async def test_an_advert_that_is_too_large_is_refused_at_once() -> None:
    big = Filter(1, bytes(200))
    async with agent(Lan(), 1) as one:
        with pytest.raises(LimitError):
            one.advertiser.publish(
                Advert(instance=instance(1), complete=big, partial=big), 1
            )


async def test_interfaces_are_followed_as_they_come_and_go(
    autojump_clock: MockClock,
) -> None:
    lan, source = Lan(), Interfaces()
    async with (
        agent(lan, 1, source=source) as one,
        agent(lan, 2, interface(1, "192.0.2.2/24")) as two,
        agent(lan, 3, interface(2, "198.51.100.3/24")) as three,
    ):
        assert repr(one).startswith("<Discovery on nothing")
        one.advertiser.publish(advert(1), 1001)
        two.advertiser.publish(advert(2), 1002)
        three.advertiser.publish(advert(3), 1003)
        source.become(ETH1)
        assert isinstance(await following(two), PeerAppeared)
        assert isinstance(await following(one), PeerAppeared)
        assert one.reaches("192.0.2.77")
        assert not one.reaches("198.51.100.77")
        source.become(ETH1, ETH2)
        assert isinstance(await following(three), PeerAppeared)
        assert isinstance(await following(one), PeerAppeared)
        assert one.reaches("198.51.100.77")
        assert one.reaches("fe80::7%eth2")
        assert not one.reaches("fe80::7%eth1")
        assert repr(one).startswith("<Discovery on eth1 eth2")
        source.become(ETH2)
        assert await following(two) == PeerGone(instance(1))
        assert await following(one) == PeerGone(instance(2))
        # A new address is a new responder, which says the new address.
        source.become(interface(2, "198.51.100.55/24"))
        gone = await following(three)
        assert gone == PeerGone(instance(1)) or isinstance(gone, PeerChanged)
        await trio.sleep(1)
        (there,) = three.browser.peers()
        assert there.targets == (("198.51.100.55", 1001),)
    assert source.closed


async def test_only_chosen_interfaces_are_opened(autojump_clock: MockClock) -> None:
    settings = Settings(choice=Choice(never=("eth1",)))
    async with agent(Lan(), 1, ETH1, ETH2, settings=settings) as one:
        assert one.interfaces == (ETH2,)


async def test_an_interface_that_cannot_be_opened_is_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lan = Lan(broken={1})
    async with agent(lan, 1, ETH1, ETH2) as one:
        assert one.failed == {"eth1": "mDNS on eth1: broken"}
        assert set(one.interfaces) == {ETH2}
        assert "mDNS on eth1: broken" in caplog.text
        lan.broken.clear()
        await trio.sleep(RETRY_SECONDS + 1)
        assert one.failed == {}
        assert set(one.interfaces) == {ETH1, ETH2}


async def test_trouble_with_mdns_is_logged_and_outlived(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lan = Lan()
    async with agent(lan, 1) as one, agent(lan, 2) as two:
        two.advertiser.publish(advert(2), 1002)
        await following(one)
        lan.stuck.add(1)
        one.advertiser.publish(advert(1), 1001)
        await one.unreachable(instance(2))
        await trio.sleep(1)
        assert caplog.text.count("mDNS: stuck") == 2
        lan.stuck.clear()
        one.advertiser.publish(advert(1, 2), 1001)
        assert isinstance(await following(two), PeerAppeared)


async def test_interfaces_that_cannot_be_read_for_a_while_are_read_later(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Interfaces(ETH1)
    async with agent(Lan(), 1, source=source) as one:
        source.failures = 2
        source.become(ETH1, ETH2)
        await trio.sleep(1)
        assert "cannot be read" in caplog.text
        assert set(one.interfaces) == {ETH1}
        await trio.sleep(2 * RETRY_SECONDS)
        assert set(one.interfaces) == {ETH1, ETH2}


async def test_a_neighbour_that_vanished_is_asked_for_and_forgotten(
    autojump_clock: MockClock,
) -> None:
    lan = Lan()
    async with agent(lan, 1) as one, agent(lan, 2) as two:
        two.advertiser.publish(advert(2), 1002)
        await following(one)
        await one.unreachable(instance(2))
        assert len(one.browser.peers()) == 1, "it still answers"
        lan.silent.add(instance(2))
        await one.unreachable(instance(2))
        assert len(one.browser.peers()) == 1, "asked a moment ago"
        await trio.sleep(60)
        await one.unreachable(instance(2))
        assert await following(one) == PeerGone(instance(2))
        await one.unreachable(instance(3))
        asked = next(d.asked for d in lan.doors if d._own == instance(1))
        assert asked == [label(instance(2))] * 2


async def test_a_session_s_proof_is_kept(autojump_clock: MockClock) -> None:
    lan = Lan()
    async with agent(lan, 1) as one, agent(lan, 2) as two:
        two.advertiser.publish(advert(2), 1002)
        await following(one)
        one.browser.confirm(instance(2))
        assert one._neighbours._confirmed == {instance(2)}


async def test_a_reader_waits_until_something_happens(
    autojump_clock: MockClock,
) -> None:
    lan = Lan()
    seen: list[PeerEvent] = []

    async def read(discovery: Discovery) -> None:
        seen.append(await anext(discovery.browser))

    async with agent(lan, 1) as one, agent(lan, 2) as two, trio.open_nursery() as n:
        n.start_soon(read, one)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        two.advertiser.publish(advert(2), 1002)
    assert [type(event) for event in seen] == [PeerAppeared]


def test_zeroconf_and_asyncio_are_not_loaded_before_they_are_needed() -> None:
    program = (
        "import sys, p2p.net.discovery, p2p.net.listener, p2p.net.session; "
        "print({'asyncio', 'zeroconf', 'cryptography'} & set(sys.modules))"
    )
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert told.strip() == "set()"
