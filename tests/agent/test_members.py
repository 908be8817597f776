"""What members say of themselves reaches those they have no session with."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from p2p.agent.meeting import Meeting, MeetingOptions, next_epoch, open_meeting
from p2p.agent.sharing import SharedCommit
from p2p.net.interfaces import Choice
from p2p.net.target import Target
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from p2p.swarm import action as a
from p2p.swarm.gossip import Member
from p2p.wire import messages as m
from p2p.wire.record import Claim, OriginState, commit_tag
from tests.agent.agents import agent_config, run, run_origin
from tests.agent.devices import Publisher

COMMIT = Checksum("ab" * 32)
LOOPBACK = Choice(only=("lo",))


@pytest.fixture
def site(tmp_path: Path) -> "Site":
    return Site(tmp_path)


class Site:
    """Where devices keep who they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holdings = Holdings.published(Repo.init(path / "repo", RepoMode.BARE_USER))

    @asynccontextmanager
    async def device(
        self, name: str, *peers: Meeting, choice: Choice = LOOPBACK, site: str = ""
    ) -> AsyncIterator[Meeting]:
        """Run a device that knows some others by configuration."""
        options = MeetingOptions(
            state=str(self.path / name),
            host="127.0.0.1",
            site=site,
            choice=choice,
            peers=tuple(Target("127.0.0.1", peer.port) for peer in peers),
        )
        async with open_meeting(self.holdings, options) as meeting:
            yield meeting


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


def said(by: Meeting, of: Meeting) -> Member | None:
    """What one knows of what another says."""
    known = {member.id: member for member in by.neighbours.members.all()}
    return known.get(of.neighbours.me)


def meets(one: Meeting, other: Meeting) -> bool:
    return one.neighbours.get(other.neighbours.me) is not None


async def test_who_is_two_sessions_away_is_known_and_then_met(site: Site) -> None:
    async with (
        site.device("hub") as hub,
        site.device("one", hub) as one,
        site.device("two", hub) as two,
    ):
        await until(lambda: meets(one, two) and meets(two, one))
        assert len(one.neighbours) == len(two.neighbours) == 2
        (known,) = (
            each
            for each in one.describe()["known"]
            if each["device"] == two.neighbours.me
        )
        assert known["met"]
        assert known["address"] == f"127.0.0.1:{two.port}"


async def test_who_is_not_on_a_chosen_link_is_known_and_not_dialled(
    site: Site,
) -> None:
    elsewhere = Choice(only=("nothing",))
    async with (
        site.device("hub") as hub,
        site.device("one", hub, choice=elsewhere) as one,
        site.device("two", hub) as two,
    ):
        await until(lambda: said(one, two) is not None)
        assert said(one, two) is not None
        assert one.describe()["known"] == []
        # What is not on a link of ours is not said either.
        await until(lambda: said(two, one) is not None)
        member = said(two, one)
        assert member is not None
        assert member.claim.addresses == ()


async def test_who_is_not_found_any_more_is_dialled_where_it_says_it_is(
    site: Site,
) -> None:
    async with site.device("hub") as hub, site.device("one", hub) as one:
        async with site.device("two", hub) as two:
            await until(lambda: meets(one, two))
        await until(lambda: not meets(one, two))
        found, target = two.neighbours.instance, Target("127.0.0.1", two.port)
        one.dialling.found(found, (target,), 0.0)
        one.dialling.lost(found)
        known = {each["address"]: each["device"] for each in one.describe()["known"]}
        assert known[str(target)] == two.neighbours.me


class Hearing:
    """Somebody who pulls, as far as members concern it."""

    def __init__(self) -> None:
        self.members: dict[m.DeviceId, Member | None] = {}

    def member(self, who: m.DeviceId, said: Member | None) -> None:
        self.members[who] = said

    def joined(self, peer: m.DeviceId, hello: m.Hello) -> None: ...
    def left(self, peer: m.DeviceId) -> None: ...
    def data(self, peer: m.DeviceId, size: int) -> None: ...
    def message(self, peer: m.DeviceId, message: m.Message) -> None: ...


async def test_who_pulls_hears_what_members_get_and_have(site: Site) -> None:
    elsewhere = Choice(only=("nothing",))
    hearing = Hearing()
    async with (
        site.device("hub") as hub,
        site.device("one", hub, choice=elsewhere) as one,
        site.device("two", hub, choice=elsewhere) as two,
    ):
        one.neighbours.begin(hearing)
        two.sharing.add(SharedCommit(COMMIT, m.Held.COMPLETE))
        claim = Claim(wants=(commit_tag(COMMIT),))
        two.neighbours.announce_member(a.AnnounceMember(claim))

        def heard() -> Claim | None:
            member = hearing.members.get(two.neighbours.me)
            return None if member is None else member.claim

        whole = replace(claim, complete=(commit_tag(COMMIT),))
        await until(lambda: heard() == whole)
        two.neighbours.end()
        await until(lambda: heard() == replace(whole, wants=()))


async def test_members_of_other_sites_are_told_nothing(site: Site) -> None:
    async with (
        site.device("hub", site="here") as hub,
        site.device("one", hub, site="here") as one,
        site.device("two", hub, site="there") as two,
    ):
        await until(lambda: said(one, hub) is not None and meets(two, hub))
        assert two.neighbours.members.all() == []
        assert said(hub, two) is None


async def test_who_takes_anothers_instance_is_not_taken_for_it(site: Site) -> None:
    async with (
        site.device("hub") as hub,
        site.device("one", hub) as one,
        site.device("two", hub) as two,
    ):
        await until(lambda: meets(hub, one) and meets(one, two))
        async with site.device("liar") as liar:
            liar.neighbours.instance = one.neighbours.instance
            async with trio.open_nursery() as nursery:
                targets = [Target("127.0.0.1", hub.port)]
                nursery.start_soon(liar.neighbours.dial, targets)
                await until(lambda: meets(hub, liar))
                names = {met.member for met in hub.neighbours}
                assert len(names) == len(hub.neighbours) == 3
                nursery.cancel_scope.cancel()


async def test_who_lost_its_state_speaks_above_what_others_remember(
    site: Site,
) -> None:
    async with site.device("hub") as hub:
        async with site.device("one", hub) as one:
            for _ in range(3):
                next_epoch(str(site.path / "one"))
            one.neighbours.members.gossip.epoch = 7
            await until(lambda: said(hub, one) is not None)
            assert hub.neighbours.members.gossip.seen(one.neighbours.me)[0] == 7
        (site.path / "one" / "epoch").unlink()
        async with site.device("one", hub) as one:
            gossip = hub.neighbours.members.gossip
            await until(lambda: gossip.seen(one.neighbours.me)[0] == 8)
            epoch = site.path / "one" / "epoch"
            await until(lambda: epoch.read_bytes() == b"8\n")


async def test_that_the_origin_wants_a_pause_is_said_to_all(
    site: Site, tmp_path: Path
) -> None:
    publisher = Publisher.create(tmp_path)
    tree = tmp_path / "tree"
    tree.mkdir()
    publisher.commit(tree)
    async with run_origin(publisher.repo) as origin, site.device("hub") as hub:
        origin.busy = 30
        peers = (Target("127.0.0.1", hub.port),)
        config = agent_config(tmp_path / "device", publisher, origin.url, peers=peers)
        async with run(config):
            await until(lambda: any(is_busy(m) for m in hub.neighbours.members.all()))


def is_busy(member: Member) -> bool:
    claim = member.claim
    return claim.origin is OriginState.BUSY and 25 <= claim.busy_seconds <= 30
