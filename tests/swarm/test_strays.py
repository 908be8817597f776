"""What is told of neighbours that left, or was never asked for."""

import pytest

from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.wire.limits import UNIT_BYTES
from p2p.wire.messages import Held, HeldCommit, Miss
from tests.swarm.rig import (
    ANNA,
    BERT,
    BIG,
    COMMIT,
    OTHER,
    Rig,
    files,
    number,
    one,
    only,
)

NONE = number(99)
PAGE = e.HashesDelivered(
    peer=ANNA, request=NONE, size=4 * UNIT_BYTES, first=0, count=4, author=ANNA
)
ANSWERS: list[e.Event] = [
    e.ObjectsDelivered(ANNA, NONE, ((BIG, 1000),)),
    PAGE,
    e.UnitDelivered(ANNA, NONE),
    e.UnitRejected(ANNA, NONE),
    e.AskAnswered(ANNA, NONE, (1000,)),
    e.RequestEnded(ANNA, NONE, e.Outcome.DONE),
]
SIGNS: list[e.Event] = [
    e.DataArrived(ANNA, 1000),
    e.StatusReported(ANNA, 0, 0.0),
    e.HoldingsChanged(ANNA, (HeldCommit(COMMIT, Held.COMPLETE),)),
    e.HaveChanged(ANNA, (BIG,)),
    e.PeerLeft(ANNA),
]


def kinds(events: list[e.Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def dropped(rig: Rig) -> list[a.Blame]:
    return [action.blame for action in only(rig.log, a.DropPeer)]


@pytest.mark.parametrize("event", ANSWERS + SIGNS, ids=kinds(ANSWERS + SIGNS))
def test_what_was_on_its_way_when_a_session_ended_changes_nothing(
    event: e.Event,
) -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    rig.want([BIG])
    rig.tell(e.PeerLeft(ANNA))
    assert not only(rig.tell(event), a.DropPeer)
    assert rig.scheduler.missing() == (BIG,)
    rig.join(BERT, COMMIT)
    assert only(rig.log, a.RequestBatch)[-1].peer == BERT


@pytest.mark.parametrize("event", ANSWERS, ids=kinds(ANSWERS))
def test_an_answer_to_nothing_ends_the_session_for_good(event: e.Event) -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    rig.want([BIG])
    drop = one(rig.tell(event), a.DropPeer)
    assert (drop.blame, drop.banned) == (a.Blame.UNREQUESTED, True)
    # It is sent away again whenever it comes back, and never asked.
    again = rig.join(ANNA, COMMIT)
    assert one(again, a.DropPeer) == drop
    assert not only(again, a.RequestBatch)


def test_an_object_that_was_not_asked_for_ends_the_session() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    request = one(rig.want(files(1)), a.RequestBatch)
    actions = rig.deliver(request, *files(1, "other"))
    assert one(actions, a.DropPeer).blame is a.Blame.UNREQUESTED
    assert not only(actions, a.Accept)


def test_an_object_of_another_size_than_the_publisher_signed_is_not_taken() -> None:
    rig = Rig()
    (name,) = files(1)
    rig.tell(e.SizesReported(((name, 1000),)))
    rig.join(ANNA, COMMIT)
    request = one(rig.want([name]), a.RequestBatch)
    actions = rig.deliver(request, size=1001)
    assert one(actions, a.DropPeer).blame is a.Blame.WRONG_SIZE
    assert not only(actions, a.Accept)
    rig.join(BERT, COMMIT)
    request = next(x for x in only(rig.log, a.RequestBatch) if x.peer == BERT)
    assert one(rig.deliver(request), a.Accept).giver == BERT


def listed(rig: Rig) -> a.RequestHashes:
    rig.tell(e.SizesReported(((BIG, 4 * UNIT_BYTES),)))
    rig.join(ANNA, COMMIT)
    return one(rig.want([BIG]), a.RequestHashes)


def test_hashes_of_other_units_than_asked_for_end_the_session() -> None:
    rig = Rig()
    asked = listed(rig)
    page = e.HashesDelivered(
        peer=ANNA,
        request=asked.request,
        size=4 * UNIT_BYTES,
        first=2,
        count=2,
        author=ANNA,
    )
    actions = rig.tell(page)
    assert one(actions, a.DropPeer).blame is a.Blame.UNREQUESTED
    assert not only(actions, a.AcceptHashes)


@pytest.mark.parametrize("again", [e.UnitDelivered, e.UnitRejected])
def test_a_unit_given_twice_for_one_request_ends_the_session(
    again: type[e.UnitDelivered | e.UnitRejected],
) -> None:
    rig = Rig()
    unit = only(rig.list_units(listed(rig), 4), a.RequestUnit)[0]
    rig.tell(e.UnitDelivered(ANNA, unit.request))
    drop = one(rig.tell(again(ANNA, unit.request)), a.DropPeer)
    assert drop.blame is a.Blame.UNREQUESTED


def test_what_a_neighbour_says_it_misses_counts_only_if_it_was_asked_for() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    request = one(rig.want(files(2)), a.RequestBatch)
    (other,) = files(1, "other")
    rig.deliver(request, misses=((other, Miss.NOT_HAVE),))
    assert rig.neighbour(ANNA).faults == 0
    assert one(rig.want([other]), a.RequestBatch).peer == ANNA


def test_who_joins_again_is_asked_anew_for_what_it_owed() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    request = one(rig.want(files(3)), a.RequestBatch)
    again = only(rig.join(ANNA, COMMIT), a.RequestBatch)
    assert [set(x.names) for x in again] == [set(request.names)]


def test_a_judgement_of_what_was_not_delivered_changes_nothing() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    (name,) = rig_names = files(1)
    request = one(rig.want(rig_names), a.RequestBatch)
    rig.verify(name)
    rig.tell(e.ObjectRejected(name), e.ObjectRejected(BIG))
    assert not dropped(rig)
    assert rig.scheduler.missing() == (name,)
    assert one(rig.deliver(request), a.Accept).names == (name,)


def test_a_map_that_ended_is_not_asked_for_again_until_holdings_change() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT, held=Held.PARTIAL)
    rig.want(files(1))
    watch = one(rig.tell(e.ClosureKnown(COMMIT)), a.Watch)
    rig.tell(e.AskAnswered(ANNA, one(rig.log, a.Ask).request, (None,)))
    rig.tell(e.HaveChanged(ANNA, (), mapped=COMMIT))
    assert not only(rig.end(watch, e.Outcome.DONE), a.Watch)
    held = (HeldCommit(COMMIT, Held.PARTIAL), HeldCommit(OTHER, Held.PARTIAL))
    assert one(rig.tell(e.HoldingsChanged(ANNA, held)), a.Watch).commit == COMMIT


def test_a_map_of_a_commit_that_is_shared_no_more_is_forgotten() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT, held=Held.PARTIAL)
    rig.want(files(1))
    rig.tell(e.ClosureKnown(COMMIT), e.HaveChanged(ANNA, (), mapped=COMMIT))
    rig.tell(e.HoldingsChanged(ANNA, ()))
    held = (HeldCommit(COMMIT, Held.PARTIAL),)
    assert one(rig.tell(e.HoldingsChanged(ANNA, held)), a.Watch).commit == COMMIT


def test_who_claims_much_and_gives_nothing_is_dropped() -> None:
    rig = Rig()
    actions = rig.join(ANNA, COMMIT) + rig.want(files(20))
    ends = 0
    while requests := only(actions, a.RequestBatch):
        actions = []
        for request in requests:
            actions += rig.end(request, e.Outcome.NOT_HAVE)
            actions += rig.have(ANNA, *request.names)
            ends += 1
        assert ends < 200
    assert dropped(rig) == [a.Blame.USELESS]
