"""What an origin that fails, errs or asks for a pause leads to."""

import pytest

from p2p.ostree.objects import ObjectName
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.tuning import Limits
from p2p.wire.limits import UNIT_BYTES
from tests.swarm.rig import ANNA, BERT, BIG, COMMIT, ME, Rig, files, one, only


def begun(names: list[ObjectName]) -> Rig:
    """Return a device that fetches all of these, as it is alone."""
    rig = Rig(origin=e.OriginState.OK)
    rig.want(names)
    rig.wait(1)
    assert {x.name for x in only(rig.log, a.FetchFromOrigin)} == set(names)
    return rig


def fetched(actions: list[a.Action]) -> list[ObjectName]:
    return [action.name for action in only(actions, a.FetchFromOrigin)]


def test_what_the_origin_lacks_is_not_asked_for_again_soon_and_told() -> None:
    (name,) = files(1)
    rig = begun([name])
    rig.tell(e.OriginFailed(name, e.Failure.NOT_FOUND))
    actions = rig.wait(40)
    assert not fetched(actions)
    stuck = one(actions, a.ReportStuck)
    assert stuck == a.ReportStuck((name,), a.Reason.NOT_AT_ORIGIN)
    # A neighbour that has it settles that.
    assert one(rig.join(ANNA, COMMIT), a.RequestBatch).names == (name,)
    cleared = one(rig.wait(1.5), a.ReportStuck)
    assert cleared == a.ReportStuck((), a.Reason.NOT_AT_ORIGIN)


def test_what_the_origin_lacked_is_asked_for_again_after_a_while() -> None:
    (name,) = files(1)
    rig = begun([name])
    rig.tell(e.OriginFailed(name, e.Failure.NOT_FOUND))
    assert fetched(rig.wait(80)) == [name]


def test_a_damaged_copy_at_the_origin_is_told_and_tried_again() -> None:
    (name,) = files(1)
    rig = begun([name])
    rig.tell(e.OriginDelivered(name, 1000))
    actions = rig.tell(e.ObjectRejected(name))
    assert not only(actions, a.DropPeer)
    rig.wait(0.4)
    actions = rig.wait(2)
    assert fetched(actions) == [name]
    rig.tell(e.OriginDelivered(name, 1000))
    rig.tell(e.ObjectRejected(name))
    for _ in range(3):
        rig.wait(1.5)
    assert a.ReportStuck((name,), a.Reason.DAMAGED) in rig.log
    assert rig.scheduler.tally.rejected == 2000


def test_what_failed_while_the_origin_was_unwell_is_tried_once_it_is_well() -> None:
    names = files(2)
    rig = begun(names)
    rig.tell(
        e.OriginFailed(names[0], e.Failure.TRANSIENT),
        e.OriginFailed(names[1], e.Failure.NOT_FOUND),
    )
    rig.tell(e.OriginStateChanged(e.OriginState.NO))
    assert fetched(rig.tell(e.OriginStateChanged(e.OriginState.OK))) == [names[0]]


def test_a_pause_the_origin_asks_for_is_kept_and_then_over() -> None:
    names = files(2)
    rig = begun(names)
    rig.tell(e.OriginStateChanged(e.OriginState.BUSY, 3.0))
    rig.tell(*(e.OriginFailed(name, e.Failure.TRANSIENT) for name in names))
    assert not fetched(rig.wait(2.9))
    assert set(fetched(rig.wait(1.0))) == set(names)


def test_a_fetch_that_others_ended_leads_to_nothing_more() -> None:
    (name,) = files(1)
    rig = begun([name])
    rig.tell(e.OriginDelivered(name, 1000))
    before = rig.scheduler.tally.origin
    for event in (
        e.OriginDelivered(name, 1000),
        e.OriginProgressed(name, 500),
        e.OriginFailed(name, e.Failure.TRANSIENT),
        e.OriginDelivered(BIG, 1000),
        e.OriginFailed(BIG, e.Failure.TRANSIENT),
    ):
        assert not only(rig.tell(event), a.Accept)
    assert rig.scheduler.tally.origin == before
    rig.verify(name)
    assert rig.scheduler.is_complete


def test_what_the_origin_cancelled_unasked_is_asked_for_again_at_once() -> None:
    (name,) = files(1)
    rig = begun([name])
    assert fetched(rig.tell(e.OriginFailed(name, e.Failure.CANCELLED))) == [name]


def test_what_a_neighbour_gave_first_is_cancelled_at_the_origin() -> None:
    rig = Rig()
    (name,) = files(1)
    rig.join(ANNA, COMMIT)
    request = one(rig.want([name]), a.RequestBatch)
    rig.wait(0.5)  # she is silent, and it is hers no more
    rig.tell(e.OriginStateChanged(e.OriginState.OK))
    assert fetched(rig.wait(4)) == [name]
    actions = rig.deliver(request)
    assert one(actions, a.Accept).giver == ANNA
    assert one(actions, a.CancelOrigin).name == name


def test_units_go_on_where_they_were_if_the_origin_gives_it_up() -> None:
    rig = Rig()
    rig.tell(e.SizesReported(((BIG, 4 * UNIT_BYTES),)))
    rig.join(ANNA, COMMIT)
    units = only(
        rig.list_units(one(rig.want([BIG]), a.RequestHashes), 4), a.RequestUnit
    )
    rig.give_unit(units[0])
    rig.tell(e.PeerLeft(ANNA), e.OriginStateChanged(e.OriginState.OK))
    rig.wait(1)
    assert fetched(rig.log) == [BIG]
    rig.tell(e.OriginFailed(BIG, e.Failure.NOT_FOUND))
    asked = only(rig.join(BERT, COMMIT), a.RequestUnit)
    assert asked
    assert units[0].unit not in {x.unit for x in asked}


def test_nothing_is_fetched_for_what_is_here_already() -> None:
    rig = Rig(origin=e.OriginState.OK)
    here, missing = files(2)
    rig.tell(e.Wanted(COMMIT, [here, missing]), e.AlreadyHere([here]))
    rig.wait(1)
    assert fetched(rig.log) == [missing]


def test_what_we_hear_of_ourselves_is_nothing_new() -> None:
    rig = begun(files(1))
    said = one(rig.log, a.AnnounceMember)
    rig.tell(e.MemberSaid(ME, said.claim))
    assert rig.parts.site.members.count == 0


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_is_asked_of_the_origin_than_is_allowed(limit: int) -> None:
    rig = Rig(origin=e.OriginState.OK, limits=Limits(origin_requests=limit))
    rig.want(files(20))
    rig.wait(1)
    assert len(fetched(rig.log)) == limit


def test_what_a_slow_neighbour_holds_up_is_fetched_once_patience_is_spent() -> None:
    rig = Rig()
    names = files(4)
    rig.tell(e.SizesReported([(name, 200_000) for name in names]))
    rig.join(ANNA, COMMIT)
    request = one(rig.want(names[:1]), a.RequestBatch)
    rig.wait(0.1)
    rig.deliver(request, size=200_000)
    rig.verify(names[0])
    rig.tell(e.OriginStateChanged(e.OriginState.OK))
    rig.want(names[1:])
    while not only(rig.log, a.Cancel):
        rig.wait(0.25)
        # It gives something all the time, and would take minutes.
        rig.tell(e.DataArrived(ANNA, 50))
        assert rig.now < 160
    assert only(rig.log, a.Cancel)
    assert set(fetched(rig.log)) <= set(names[1:])
    assert fetched(rig.log)
