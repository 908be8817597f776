"""Who does not do its part at the origin, and who is not waited for."""

from collections.abc import Callable

from p2p.ostree.objects import ObjectName
from p2p.sim.site import MBIT, VirtualSite
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.lifecycle import State
from p2p.wire.messages import DeviceId, Held
from tests.swarm.rig import ANNA, BERT, COMMIT, Rig, files, only
from tests.swarm.test_virtual_site import RATE, publish, run, small_tree


class Site:
    """A device that shares a commit with others, and an origin that answers it."""

    def __init__(self, *members: DeviceId, count: int = 400) -> None:
        self.rig = Rig(origin=e.OriginState.OK)
        for member in members:
            self.rig.join(member, COMMIT, held=Held.BEGUN)
        self.names = files(count)
        self.rig.want(self.names)

    def is_suspect(self, member: DeviceId) -> bool:
        found = self.rig.parts.site.members.get(member)
        assert found is not None
        return found.stands

    def owned_by(self, member: DeviceId) -> list[ObjectName]:
        bits = self.rig.parts.lane.ownership.owned_by(member)
        return list(self.rig.parts.site.catalogue.names_of(bits))

    def get_one(self) -> None:
        site = self.rig.parts.site
        name = site.name(next(iter(site.fetches)))
        self.rig.tell(e.OriginDelivered(name, 1000))
        self.rig.verify(name)

    def spend(self, seconds: int, each: Callable[[], None]) -> None:
        for _ in range(5 * seconds):
            each()
            self.rig.wait(0.2)


def test_who_brings_nothing_while_we_get_on_is_not_waited_for() -> None:
    site = Site(ANNA)
    site.spend(6, site.get_one)
    assert site.is_suspect(ANNA)
    theirs = set(site.owned_by(ANNA))
    fetched = {fetch.name for fetch in only(site.rig.log, a.FetchFromOrigin)}
    assert not theirs & fetched, "what is ours comes first"
    while not theirs & fetched:
        site.get_one()
        site.rig.wait(0.1)
        fetched = {fetch.name for fetch in only(site.rig.log, a.FetchFromOrigin)}


def test_nobody_is_suspected_while_nobody_gets_on() -> None:
    site = Site(ANNA, BERT)
    site.rig.wait(30.0)
    assert not site.is_suspect(ANNA)
    assert not site.is_suspect(BERT)


def test_who_brings_its_part_is_trusted_and_trusted_again() -> None:
    site = Site(ANNA, BERT)
    its = iter(site.owned_by(BERT))

    def both() -> None:
        site.get_one()
        site.rig.have(BERT, next(its))

    site.spend(8, both)
    assert site.is_suspect(ANNA)
    assert not site.is_suspect(BERT)
    site.rig.have(ANNA, site.owned_by(ANNA)[0])
    site.spend(2, both)
    assert not site.is_suspect(ANNA)


def test_what_others_fetched_does_not_speak_for_a_suspect() -> None:
    site = Site(ANNA, BERT)
    its = iter(site.owned_by(BERT))

    def both() -> None:
        site.get_one()
        site.rig.have(BERT, next(its))

    site.spend(6, both)
    theirs = site.owned_by(ANNA)[0]
    site.rig.have(BERT, theirs)
    site.rig.have(ANNA, theirs)
    site.spend(2, both)
    assert site.is_suspect(ANNA)


def test_a_claim_of_everything_stops_us_only_for_a_moment() -> None:
    rig = Rig(origin=e.OriginState.OK)
    rig.join(ANNA, COMMIT)
    rig.want(files(2000))
    assert only(rig.log, a.RequestBatch)
    for step in range(12):
        rig.tell(e.StatusReported(ANNA, 1_000_000, 0.0))
        assert bool(only(rig.log, a.FetchFromOrigin)) == (step > 10)
        rig.wait(0.1)


def test_a_queue_that_gets_shorter_is_waited_for() -> None:
    rig = Rig(origin=e.OriginState.OK)
    rig.join(ANNA, COMMIT)
    rig.want(files(2000))
    for step in range(30):
        rig.tell(e.StatusReported(ANNA, 4_000_000 - 100_000 * step, 1e6))
        rig.wait(0.1)
        if step < 15:
            assert rig.parts.site.catalogue.having(State.ASKED)
    assert not only(rig.log, a.FetchFromOrigin)


def test_a_member_whose_link_is_dead_costs_the_site_little_time() -> None:
    seconds = []
    for is_dead in (False, True):
        tree = small_tree(files=200)
        site = VirtualSite(seed=4, wan=10 * MBIT)
        publish(site, tree)
        devices = [site.add(f"device {k}", up=RATE) for k in range(4)]
        origin = site.origin
        assert origin is not None
        if is_dead:
            receive = origin.received
            deaf = devices[0].id

            def hear(
                peer: DeviceId,
                message: object,
                deaf: DeviceId = deaf,
                receive: Callable[[DeviceId, object], None] = receive,
            ) -> None:
                if peer != deaf:
                    receive(peer, message)

            origin.received = hear  # type: ignore[method-assign]
        for device in devices:
            device.want(tree)
        site.connect()
        figures = run(site)
        assert figures.unfinished == 0
        assert figures.wan <= 1.04 * tree.bytes
        seconds.append(figures.seconds)
    assert seconds[1] <= seconds[0] + 2.5
