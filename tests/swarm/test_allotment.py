"""The rate of the whole site is divided among those who fetch."""

from dataclasses import replace

from p2p.sim.site import MBIT, VirtualSite
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.tuning import Limits
from p2p.wire.record import Active, Claim, bucket_lease, commit_tag
from tests.swarm.rig import ANNA, BERT, COMMIT, Rig, files, one, only
from tests.swarm.test_virtual_site import RATE, publish, run, small_tree

FETCHING = Claim(
    wants=(commit_tag(COMMIT),),
    origin=e.OriginState.OK,
    active=(Active(bucket_lease(1), 0),),
)


def test_each_that_fetches_takes_an_equal_part() -> None:
    rig = Rig(origin=e.OriginState.OK, limits=Limits(origin_rate=9000.0))
    assert one(rig.want(files(9)), a.ShareOrigin).rate == 9000.0
    assert one(rig.tell(e.MemberSaid(ANNA, FETCHING)), a.ShareOrigin).rate == 4500.0
    assert one(rig.tell(e.MemberSaid(BERT, FETCHING)), a.ShareOrigin).rate == 3000.0
    idle = replace(FETCHING, active=())
    assert one(rig.tell(e.MemberSaid(ANNA, idle)), a.ShareOrigin).rate == 4500.0
    assert one(rig.tell(e.MemberGone(BERT)), a.ShareOrigin).rate == 9000.0


def test_another_limit_counts_at_once_and_none_is_none() -> None:
    rig = Rig(origin=e.OriginState.OK)
    rig.want(files(9))
    assert not only(rig.log, a.ShareOrigin)
    limited = rig.tell(e.LimitsChanged(Limits(origin_rate=500.0)))
    assert one(limited, a.ShareOrigin).rate == 500.0
    assert one(rig.tell(e.LimitsChanged(Limits())), a.ShareOrigin).rate is None


def test_a_site_keeps_to_its_rate_and_makes_use_of_it() -> None:
    tree = small_tree(files=600)
    site = VirtualSite(seed=4, wan=100 * MBIT)
    publish(site, tree)
    cap = 10 * MBIT
    for number in range(5):
        device = site.add(f"device {number}", up=RATE)
        device.scheduler.handle(e.LimitsChanged(Limits(origin_rate=cap)), 0.0)
        device.want(tree)
    site.connect()
    figures = run(site)
    assert figures.unfinished == 0
    assert 0.9 * cap <= figures.wan / figures.seconds <= 1.1 * cap
