"""What a neighbour that fails to answer costs, told to a scheduler event by event."""

from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.wire.limits import MAX_PAGE_HASHES
from p2p.wire.messages import Held, HeldCommit, Miss
from tests.swarm.rig import ANNA, BERT, BIG, CLEO, COMMIT, OTHER, Rig, files, one, only


def test_nothing_is_done_while_what_was_put_off_need_not_be_asked_for() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    request = one(rig.want(files(1)), a.RequestBatch)
    rig.end(request, e.Outcome.ELSEWHERE)
    rig.join(BERT, COMMIT)
    assert one(rig.log[-1:], a.RequestBatch).peer == BERT
    rig.tell(e.DataArrived(BERT, 1))
    for _ in range(8):
        # It is never woken for a time that is over; `act` checks that.
        rig.wait(0.2)
        rig.tell(e.StatusReported(BERT, 0, 0.0))


def test_who_fell_silent_often_is_soon_asked_again() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    request = one(rig.want(files(1)), a.RequestBatch)
    for _ in range(8):
        rig.wait(1)
        rig.end(request, e.Outcome.CANCELLED)
        request = one(rig.wait(2.1), a.RequestBatch)


def test_who_says_that_it_lives_and_gives_nothing_is_not_waited_for() -> None:
    rig = Rig()
    names = files(1)
    rig.join(ANNA, COMMIT)
    request = one(rig.want(names), a.RequestBatch)
    rig.wait(0.01)
    rig.deliver(request, size=400_000)
    rig.verify(*names)
    one(rig.want(files(1, "other")), a.RequestBatch)
    rig.join(BERT, COMMIT)
    asked: list[a.RequestBatch] = []
    for _ in range(8):
        asked += only(rig.wait(0.19), a.RequestBatch)
        rig.tell(*(e.StatusReported(peer, 0, 0.0) for peer in (ANNA, BERT)))
    assert asked[0].peer == BERT


def test_what_was_left_to_others_is_asked_for_when_they_leave() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    request = one(rig.want(files(1)), a.RequestBatch)
    rig.join(BERT, COMMIT)
    one(rig.end(request, e.Outcome.ELSEWHERE), a.RequestBatch)
    again = one(rig.tell(e.PeerLeft(BERT)), a.RequestBatch)
    assert again.peer == ANNA


def test_a_page_of_hashes_is_asked_of_another_if_its_giver_leaves() -> None:
    rig = Rig()
    rig.tell(e.SizesReported(((BIG, 2 * MAX_PAGE_HASHES << 18),)))
    rig.join(ANNA, COMMIT)
    request = one(rig.want([BIG]), a.RequestHashes)
    actions = rig.list_units(request, 2 * MAX_PAGE_HASHES, count=MAX_PAGE_HASHES)
    assert one(actions, a.RequestHashes).first == MAX_PAGE_HASHES
    rig.join(BERT, COMMIT)
    page = one(rig.tell(e.PeerLeft(ANNA)), a.RequestHashes)
    assert (page.peer, page.first) == (BERT, MAX_PAGE_HASHES)


def test_who_denied_something_and_has_it_all_now_is_asked_again() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT, held=Held.PARTIAL)
    rig.want(names := files(1))
    rig.have(ANNA, *names)
    request = one(rig.log[-1:], a.RequestBatch)
    rig.end(request, e.Outcome.DONE, misses=((names[0], Miss.NOT_HAVE),))
    holds = e.HoldingsChanged(ANNA, (HeldCommit(COMMIT, Held.COMPLETE),))
    assert one(rig.tell(holds), a.RequestBatch).names == tuple(names)


def test_a_question_that_was_not_answered_is_asked_again() -> None:
    rig = Rig()
    rig.join(CLEO, OTHER)
    names = files(3)
    question = one(rig.want(names), a.Ask)
    rig.wait(0.5)
    rig.end(question, e.Outcome.CANCELLED)
    assert one(rig.wait(1), a.Ask).names == question.names


def test_who_is_doubted_and_refuses_to_give_a_whole_object_is_asked_for_units() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    rig.neighbour(ANNA).faults = 10
    request = one(rig.want(files(1)), a.RequestBatch)
    misses = ((request.names[0], Miss.TOO_LARGE),)
    one(rig.end(request, e.Outcome.DONE, misses=misses), a.RequestHashes)


def test_bytes_and_queues_call_for_no_decision() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    rig.want(files(4))
    assert not rig.scheduler.is_stirred
    for event in (e.DataArrived(ANNA, 10_000), e.StatusReported(ANNA, 5, 0.0)):
        rig.scheduler.handle(event, rig.now)
        assert not rig.scheduler.is_stirred
    rig.scheduler.handle(e.PeerLeft(ANNA), rig.now)
    assert rig.scheduler.is_stirred


def test_a_word_of_somebody_who_was_silent_does() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    rig.want(files(4))
    rig.wait(1)
    rig.scheduler.handle(e.DataArrived(ANNA, 10_000), rig.now)
    assert rig.scheduler.is_stirred
