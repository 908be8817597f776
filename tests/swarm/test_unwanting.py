"""A commit that is not wanted any more while its objects are on their way."""

from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.wire.limits import UNIT_BYTES
from p2p.wire.messages import Held
from tests.swarm.rig import ANNA, BIG, COMMIT, OTHER, Rig, files, one, only


def test_fetches_of_what_nothing_else_needs_are_given_up() -> None:
    rig = Rig(origin=e.OriginState.OK)
    common, alone = files(2)
    rig.want([common, alone])
    rig.want([common], OTHER)
    rig.wait(1)
    assert {x.name for x in only(rig.log, a.FetchFromOrigin)} == {common, alone}
    assert one(rig.tell(e.Unwanted(COMMIT)), a.CancelOrigin).name == alone
    rig.tell(e.OriginFailed(alone, e.Failure.CANCELLED))
    assert not only(rig.wait(30), a.FetchFromOrigin)
    rig.tell(e.OriginDelivered(common, 1000))
    rig.verify(common)
    assert rig.scheduler.is_complete


def test_a_fetch_that_is_given_up_already_is_not_given_up_twice() -> None:
    rig = Rig(origin=e.OriginState.OK)
    (name,) = files(1)
    rig.want([name])
    rig.join(ANNA, OTHER)
    rig.tell(e.SizesReported(((name, 9 << 20),)))
    assert one(rig.have(ANNA, name), a.CancelOrigin).name == name
    assert not only(rig.tell(e.Unwanted(COMMIT)), a.CancelOrigin)


def test_units_of_a_large_object_are_thrown_away_and_withdrawn() -> None:
    rig = Rig()
    rig.tell(e.SizesReported(((BIG, 4 * UNIT_BYTES),)))
    rig.join(ANNA, COMMIT)
    units = only(
        rig.list_units(one(rig.want([BIG]), a.RequestHashes), 4), a.RequestUnit
    )
    actions = rig.tell(e.Unwanted(COMMIT))
    assert one(actions, a.DiscardUnits).name == BIG
    assert {x.request for x in only(actions, a.Cancel)} == {x.request for x in units}
    assert rig.scheduler.is_complete


def test_what_the_origin_gave_instead_of_units_weighs_no_more() -> None:
    rig = Rig(origin=e.OriginState.OK)
    rig.tell(e.SizesReported(((BIG, 4 * UNIT_BYTES),)))
    rig.join(ANNA, COMMIT)
    rig.list_units(one(rig.want([BIG]), a.RequestHashes), 4)
    assert one(rig.tell(e.PeerLeft(ANNA)), a.FetchFromOrigin).name == BIG
    rig.tell(e.OriginDelivered(BIG, 4 * UNIT_BYTES))
    assert rig.parts.site.backlog == 4 * UNIT_BYTES
    rig.tell(e.Unwanted(COMMIT))
    rig.verify(BIG)
    assert rig.parts.site.backlog == 0


def test_its_maps_are_watched_no_more_and_others_still_are() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT, OTHER, held=Held.PARTIAL)
    rig.want(files(1))
    rig.want(files(1, "other"), OTHER)
    rig.tell(e.ClosureKnown(COMMIT), e.ClosureKnown(OTHER))
    watches = {watch.commit: watch.request for watch in only(rig.log, a.Watch)}
    assert one(rig.tell(e.Unwanted(COMMIT)), a.Cancel).request == watches[COMMIT]
    # Its end was asked for; to ask once more would be a fault.
    assert not only(rig.tell(e.Unwanted(COMMIT)), a.Cancel)
