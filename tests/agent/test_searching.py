"""Sessions that come of what is heard: real TLS on loopback, mDNS in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
import trio.testing

from p2p.agent.config import Fleet
from p2p.agent.meeting import Meeting, MeetingOptions, open_meeting
from p2p.agent.searching import Searching, read_advert_key
from p2p.agent.sharing import SharedCommit
from p2p.errors import ConfigError, FormatError
from p2p.net.advert import AdvertKey, InstanceId, Item, Ref, decode, encode
from p2p.net.discovery import Discovery, Settings, open_discovery
from p2p.net.interfaces import Choice
from p2p.net.neighbours import Announcement, Heard, label
from p2p.net.target import Target
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from p2p.swarm.overlay import CHOSEN, MOST_SESSIONS, RING_EACH
from p2p.wire.messages import Held
from tests.net.lan import Interfaces, Lan, interface

COMMIT = Checksum("ab" * 32)
OTHER = Checksum("cd" * 32)
KEY = AdvertKey.open()
LOOPBACK = replace(interface(1, "127.0.0.1/8", name="lo"), flags=0x10049)
QUICK = Settings(
    start_jitter=0,
    update_jitter=0,
    update_interval=0.01,
    choice=Choice(only=("lo",)),
)


@dataclass
class Device:
    """One agent of the site."""

    meeting: Meeting
    discovery: Discovery
    searching: Searching

    @property
    def instance(self) -> InstanceId:
        return self.meeting.neighbours.instance

    def meets(self, *others: "Device") -> bool:
        met = {each.instance for each in self.meeting.neighbours}
        return met == {other.instance for other in others}


@dataclass
class Site:
    """A LAN in memory, and where devices keep who they are."""

    path: Path
    lan: Lan

    @asynccontextmanager
    async def device(self, name: str, *, site: str = "") -> AsyncIterator[Device]:
        """Run a device that looks for neighbours."""
        repo = Repo.init(self.path / name / "repo", RepoMode.BARE_USER)
        state = str(self.path / name / "state")
        options = MeetingOptions(state=state, host="127.0.0.1", site=site)
        async with (
            open_meeting(Holdings.published(repo), options) as meeting,
            open_discovery(
                meeting.neighbours.instance,
                QUICK,
                source=Interfaces(LOOPBACK),
                make_door=self.lan.door(),
            ) as discovery,
            trio.open_nursery() as nursery,
        ):
            searching = Searching(
                discovery,
                meeting.dialling,
                meeting.neighbours,
                meeting.sharing,
                KEY,
                port=meeting.port,
                site=site,
            )
            nursery.start_soon(searching.run)
            yield Device(meeting, discovery, searching)
            nursery.cancel_scope.cancel()

    def throw(self, heard: Heard) -> None:
        """Let everybody hear something."""
        for door in self.lan.doors:
            door._hear(heard)

    def last_said(self, device: Device) -> Announcement:
        (*_, last) = (
            announcement
            for _, who, _, announcement in self.lan.said
            if who == label(device.instance) and announcement is not None
        )
        return last


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, Lan())


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


def stranger(number: int, address: str, port: int = 9) -> Heard:
    """What a device says that nobody else knows of."""
    instance = InstanceId(number.to_bytes(16))
    announcement = Announcement(port, encode(KEY.make(instance)))
    return Heard(
        link=LOOPBACK.index,
        label=label(instance),
        port=announcement.port,
        addresses=(address,),
        txt=announcement.txt,
    )


async def test_those_who_hear_of_each_other_meet_once(site: Site) -> None:
    async with (
        site.device("one") as one,
        site.device("two") as two,
        site.device("three") as three,
    ):
        await until(
            lambda: (
                one.meets(two, three)
                and two.meets(one, three)
                and three.meets(one, two)
            )
        )


async def test_who_left_and_came_back_is_met_again(site: Site) -> None:
    async with site.device("one") as one:
        async with site.device("two") as two:
            await until(lambda: one.meets(two))
        await until(one.meets)
        async with site.device("two again") as two:
            await until(lambda: one.meets(two))


async def test_what_is_shared_is_said_and_who_asks_the_filter_is_told(
    site: Site,
) -> None:
    async with site.device("one") as one:
        sharing = one.meeting.sharing
        sharing.begin(OTHER)
        sharing.add(SharedCommit(COMMIT, Held.COMPLETE))
        sharing.add_ref("os", "", COMMIT)
        instance = one.instance

        def is_said(complete: Item) -> bool:
            said = decode(site.last_said(one).txt)
            return KEY.may_have(said, complete) and KEY.may_have_part(said, OTHER)

        await until(lambda: bool(site.lan.said))
        await until(lambda: is_said(COMMIT))
        assert is_said(Ref("os"))
        assert not is_said(OTHER)
        assert decode(site.last_said(one).txt).instance == instance
        assert site.last_said(one).port == one.meeting.port


async def test_members_of_other_sites_are_not_dialled(site: Site) -> None:
    async with (
        site.device("one", site="here") as one,
        site.device("two", site="there") as two,
        site.device("three", site="here") as three,
        site.device("four") as four,
    ):
        await until(lambda: one.meets(three, four) and two.meets(four))
        assert not one.meeting.neighbours.meets(two.instance)


async def test_members_of_other_sites_are_given_but_not_drawn_on(site: Site) -> None:
    async with (
        site.device("one", site="here") as one,
        site.device("two", site="there") as two,
        trio.open_nursery() as nursery,
    ):
        target = Target("127.0.0.1", two.meeting.port)
        nursery.start_soon(one.meeting.neighbours.dial, [target])
        await until(lambda: one.meets(two) and two.meets(one))
        assert not one.meeting.neighbours.has_sources
        assert not two.meeting.neighbours.has_sources
        nursery.cancel_scope.cancel()


async def test_nobody_is_dialled_for_what_makes_no_sense(site: Site) -> None:
    async with site.device("one") as one:
        malformed = replace(stranger(2, "127.0.0.1"), txt=b"\xff")
        own = replace(
            stranger(0, "127.0.0.1"), label=label(one.instance), port=one.meeting.port
        )
        for heard in (stranger(1, "192.0.2.1"), malformed, own):
            site.throw(heard)
        async with site.device("two") as two:
            await until(lambda: one.meets(two))
            assert one.meeting.neighbours.endings["ConnectError"] == 0
        assert one.searching.ignored["it is malformed"] == 1
        assert one.searching.ignored["no address of it is on the link"] == 1
        assert one.searching.ignored["it is our own"] >= 1


async def test_who_cannot_be_reached_is_asked_for_and_does_not_hinder_others(
    site: Site,
) -> None:
    async with site.device("one") as one:
        # Port 9 of loopback refuses.
        for number in range(1, 40):
            site.throw(stranger(number, f"127.0.0.{number + 1}"))
        (door,) = site.lan.doors
        await until(lambda: len(door.asked) >= 30)
        async with site.device("two") as two:
            await until(lambda: one.meets(two))
        # Nobody answers for them, so they are forgotten.
        await until(
            lambda: set(one.meeting.neighbours.overlay.members) <= {two.instance}
        )
        assert "ConnectError" in one.meeting.neighbours.endings


class Loses(trio.abc.Instrument):
    """Has a member lost when the task that is to dial it begins."""

    def __init__(self, meeting: Meeting, who: InstanceId) -> None:
        self.meeting = meeting
        self.who = who
        self.lost = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.endswith("Dialling._dial") and not self.lost:
            self.lost += 1
            self.meeting.dialling.lost(self.who)


async def test_who_is_lost_when_it_is_about_to_be_dialled_hinders_nobody(
    site: Site,
) -> None:
    async with site.device("one") as one:
        who = InstanceId(bytes(16))
        loses = Loses(one.meeting, who)
        trio.lowlevel.add_instrument(loses)
        one.meeting.dialling.found(who, (Target("127.0.0.1", 1),), 0.0)
        await until(lambda: loses.lost > 0)
        async with site.device("two") as two:
            await until(lambda: one.meets(two))


def test_adverts_of_a_fleet_need_its_secret(tmp_path: Path) -> None:
    fleet = Fleet(authority="", certificate="", key="", secret=str(tmp_path / "secret"))
    with pytest.raises(ConfigError, match="secret"):
        read_advert_key(fleet)
    (tmp_path / "secret").write_bytes(b"short\n")
    with pytest.raises((ConfigError, FormatError)):
        read_advert_key(fleet)
    (tmp_path / "secret").write_bytes(b"0123456789abcdef\n")
    key = read_advert_key(fleet)
    assert key is not None
    instance = InstanceId(bytes(16))
    made = AdvertKey.fleet(b"0123456789abcdef").make(instance, complete=[COMMIT])
    assert key.make(instance, complete=[COMMIT]) == made


async def test_a_fleet_without_a_secret_says_nothing_of_what_it_holds(
    site: Site, tmp_path: Path
) -> None:
    fleet = Fleet(authority="", certificate="", key="", secret=None)
    assert read_advert_key(fleet) is None
    async with site.device("one", site="here") as one:
        one.searching._key = None
        one.meeting.sharing.begin(COMMIT)

        def is_silent() -> bool:
            said = decode(site.last_said(one).txt)
            return (said.site, said.complete, said.partial) == (None, None, None)

        await until(lambda: bool(site.lan.said))
        await until(is_silent)


async def test_a_large_site_is_connected_by_few_sessions(site: Site) -> None:
    async with AsyncExitStack() as stack:
        devices = [
            await stack.enter_async_context(site.device(f"d{n}")) for n in range(22)
        ]
        names = {device.instance for device in devices}

        def met(device: Device) -> set[InstanceId]:
            return {InstanceId(each.instance) for each in device.meeting.neighbours}

        def is_settled() -> bool:
            known = [device.meeting.neighbours.overlay for device in devices]
            return all(
                set(each.members) >= names - {device.instance}
                and each.ring() <= met(device)
                and len(met(device)) >= 2 * RING_EACH + CHOSEN
                for device, each in zip(devices, known, strict=True)
            )

        await until(is_settled)
        assert all(len(met(device)) <= MOST_SESSIONS for device in devices)
        reached = {devices[0].instance}
        for _ in devices:
            reached.update(*(met(d) for d in devices if d.instance in reached))
        assert reached == names
