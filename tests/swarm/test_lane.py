"""What is fetched from the origin, and what is given up again."""

from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.wire.messages import Held
from tests.swarm.rig import ANNA, BIG, COMMIT, ME, Rig, one, only


def fetching() -> Rig:
    """A large object is on its way when a neighbour turns out to have it."""
    rig = Rig(origin=e.OriginState.OK)
    rig.join(ANNA, COMMIT, held=Held.BEGUN, peer_origin=e.OriginState.NO)
    rig.tell(e.SizesReported(((BIG, 9 << 20),)))
    assert one(rig.want([BIG]), a.FetchFromOrigin).name == BIG
    return rig


def test_what_a_neighbour_has_is_left_to_it_early_on() -> None:
    rig = fetching()
    assert one(rig.have(ANNA, BIG), a.CancelOrigin).name == BIG


def test_what_is_being_given_up_is_not_begun_again_before_it_is_over() -> None:
    rig = fetching()
    both = rig.tell(e.HaveChanged(ANNA, (BIG,)), e.PeerLeft(ANNA))
    assert only(both, a.CancelOrigin)
    assert not only(both, a.FetchFromOrigin)
    again = rig.tell(e.OriginFailed(BIG, e.Failure.CANCELLED))
    assert one(again, a.FetchFromOrigin).name == BIG


def test_what_comes_although_it_is_being_given_up_is_taken() -> None:
    rig = fetching()
    both = rig.tell(e.HaveChanged(ANNA, (BIG,)), e.OriginDelivered(BIG, 9 << 20))
    assert one(both, a.Accept) == a.Accept((BIG,), None)
    rig.verify(BIG)
    assert rig.scheduler.is_complete
    assert ME not in rig.parts.site.neighbours
