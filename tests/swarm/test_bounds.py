"""What we keep, ask for and wait for has bounds, whatever others say."""

from random import Random

from p2p.ostree.objects import ObjectName
from p2p.sim.site import device_id
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.allotment import Allotment
from p2p.swarm.membership import Members
from p2p.swarm.overlay import Overlay
from p2p.swarm.tuning import Limits, Tuning
from p2p.wire.messages import Held
from p2p.wire.record import Claim, OriginState, commit_tag
from tests.swarm.rig import ANNA, BERT, BIG, COMMIT, Rig, files, one, only

WANTS = Claim(wants=(commit_tag(COMMIT),), origin=OriginState.OK)


def test_nothing_more_is_asked_for_while_the_writer_is_behind() -> None:
    rig = Rig(limits=Limits(backlog_bytes=5000))
    names = files(600)
    rig.join(ANNA, COMMIT)
    actions = rig.want(names)
    given: list[ObjectName] = []
    while requests := only(actions, a.RequestBatch):
        actions = []
        for request in requests:
            given += request.names
            actions += rig.deliver(request)
    assert 0 < len(given) < len(names)
    assert only(rig.verify(*given), a.RequestBatch)


def test_units_beyond_what_an_object_can_have_are_not_kept() -> None:
    rig = Rig(tuning=Tuning(max_units=8))
    rig.join(ANNA, COMMIT, held=Held.BEGUN)
    rig.want([BIG])
    (other,) = files(1)
    rig.tell(
        e.HaveChanged(
            ANNA, units=(e.UnitsHad(BIG, (1 << 1000) | 1), e.UnitsHad(other, 1))
        )
    )
    assert list(rig.neighbour(ANNA).early.values()) == [1]


def test_those_banned_longest_ago_are_forgotten_first() -> None:
    rig = Rig()
    for number in range(4097):
        rig.tell(e.MisbehaviourSeen(device_id(f"liar {number}")))
    assert len(rig.parts.site.banned) == 4096
    assert not only(rig.tell(e.PeerJoined(device_id("liar 0"))), a.DropPeer)
    assert only(rig.tell(e.PeerJoined(device_id("liar 4096"))), a.DropPeer)


def test_members_beyond_what_a_site_may_have_replace_the_oldest() -> None:
    members = Members(suspicion=2.0)
    for number in range(4097):
        members.said(device_id(f"member {number}"), WANTS, 0.0, 1.0)
    assert members.count == 4096
    assert members.get(device_id("member 0")) is None
    members.gone(device_id("member 0"))
    assert members.count == 4096


def test_neighbours_are_not_asked_twice_for_what_we_read_slowly() -> None:
    """At the end of an update idle neighbours are asked too, if it is they."""

    def asked_twice(rate: float | None) -> bool:
        rig = Rig(limits=Limits(download_rate=rate))
        rig.join(ANNA, COMMIT)
        rig.join(BERT, COMMIT)
        names = files(1)
        first = one(rig.want(names), a.RequestBatch)
        for _ in range(20):
            rig.wait(0.1)
            rig.tell(e.StatusReported(first.peer, 0, 0.0))
            rig.tell(e.DataArrived(first.peer, 100))
        return any(x.peer != first.peer for x in only(rig.log, a.RequestBatch))

    assert asked_twice(None)
    assert not asked_twice(1000.0)


def test_what_describes_a_scheduler_is_short() -> None:
    rig = Rig(origin=e.OriginState.OK)
    rig.join(ANNA, COMMIT)
    rig.want(files(300))
    rig.wait(1)
    assert repr(rig.scheduler).startswith("<Scheduler <Catalogue ")
    neighbour = repr(rig.neighbour(ANNA))
    assert "stalled" in neighbour
    assert len(neighbour) < 200
    assert repr(rig.parts.site.members.get(ANNA)) == (
        f"<Member {ANNA[:8]} live, 0 fetches>"
    )
    assert repr(rig.parts.site.members) == "<Members 1>"
    assert repr(rig.parts.splits) == "<Splits 0 large objects under way>"
    assert repr(rig.parts.lane.suspicion) == "<Suspicion 1 owners>"
    assert repr(Overlay(b"me", Random(1))) == "<Overlay 0 of 0>"
    assert repr(Allotment(rig.parts.site)) == "<Allotment of None bytes/s>"
