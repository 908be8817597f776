"""Neighbours that say what is not so, told to a scheduler event by event."""

import pytest

from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.tuning import Tuning
from p2p.wire.limits import LARGE_OBJECT_BYTES, MAX_OBJECT_UNITS, UNIT_BYTES
from p2p.wire.messages import DeviceId, Miss
from tests.swarm.rig import (
    ANNA,
    BERT,
    BIG,
    CLEO,
    COMMIT,
    Rig,
    dirtrees,
    files,
    one,
    only,
)

HUGE = 1 << 40


def ask_of(actions: list[a.Action], peer: DeviceId) -> a.Ask:
    return next(x for x in only(actions, a.Ask) if x.peer == peer)


def too_large(rig: Rig, request: a.RequestBatch) -> list[a.Action]:
    misses = tuple((name, Miss.TOO_LARGE) for name in request.names)
    return rig.end(request, e.Outcome.DONE, misses=misses)


def hashes(
    rig: Rig,
    request: a.RequestHashes,
    size: int,
    *,
    author: DeviceId | None = None,
    count: int = 1,
) -> list[a.Action]:
    return rig.tell(
        e.HashesDelivered(
            peer=request.peer,
            request=request.request,
            size=size,
            first=request.first,
            count=count,
            author=author or request.peer,
        ),
        e.RequestEnded(request.peer, request.request, e.Outcome.DONE),
    )


# -- sizes ---------------------------------------------------------------------------


def test_who_says_too_large_is_asked_for_hashes_and_not_for_the_object_again() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    request = one(rig.want(files(1)), a.RequestBatch)
    actions = too_large(rig, request)
    assert not only(actions, a.RequestBatch)
    asked = one(actions, a.RequestHashes)
    # It contradicts itself: now it may be asked for neither.
    actions = hashes(rig, asked, 1000)
    actions += rig.wait(5)
    assert not only(actions, a.RequestBatch)
    assert not only(actions, a.RequestHashes)


def test_one_that_lies_about_sizes_does_not_keep_an_object_from_another() -> None:
    rig = Rig()
    names = files(1)
    rig.join(ANNA, COMMIT)
    request = one(rig.want(names), a.RequestBatch)
    rig.join(BERT, COMMIT)
    asked = one(too_large(rig, request), a.RequestHashes)
    rig.end(asked, e.Outcome.NOT_HAVE)
    again = [x for x in rig.log if isinstance(x, a.RequestHashes) and x.peer == BERT]
    actions = hashes(rig, again[0], 1000)
    wanted = one(actions, a.RequestBatch)
    assert wanted.peer == BERT
    assert one(rig.deliver(wanted), a.Accept).names == tuple(names)
    rig.verify(*names)
    # Bert told the truth and Anna did not: it is her fault alone.
    assert rig.neighbour(ANNA).faults > 0
    assert rig.neighbour(BERT).faults == 0


def test_a_large_directory_comes_in_units_like_a_file() -> None:
    rig = Rig()
    names = dirtrees(1)
    rig.join(ANNA, COMMIT)
    request = one(rig.want(names), a.RequestBatch)
    asked = one(too_large(rig, request), a.RequestHashes)
    actions = hashes(rig, asked, 3 * UNIT_BYTES, count=3)
    assert only(actions, a.RequestUnit)


def test_no_directory_has_more_than_ten_mebibytes() -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    request = one(rig.want(dirtrees(1)), a.RequestBatch)
    asked = one(too_large(rig, request), a.RequestHashes)
    actions = hashes(rig, asked, 41 * UNIT_BYTES, count=41)
    assert not only(actions, a.RequestUnit)
    assert rig.neighbour(ANNA).faults == 1


def test_a_signed_size_outweighs_any_word() -> None:
    rig = Rig()
    names = files(1)
    rig.tell(e.SizesReported(((names[0], 1000),)))
    rig.join(ANNA, COMMIT)
    request = one(rig.want(names), a.RequestBatch)
    too_large(rig, request)
    rig.join(BERT, COMMIT)
    assert one(rig.log[-1:], a.RequestBatch).peer == BERT


def test_sizes_of_a_liar_are_forgotten_once_some_are_refuted() -> None:
    rig = Rig()
    names = files(40)
    rig.join(ANNA, COMMIT)
    actions = rig.want(names)
    asked = ask_of(actions, ANNA)
    rig.join(BERT, COMMIT)
    catalogue = rig.parts.site.catalogue
    first = only(actions, a.RequestBatch)[0]
    rig.tell(e.AskAnswered(ANNA, asked.request, (HUGE,) * len(asked.names)))
    assert catalogue.large.bit_count() == len(names)
    rig.deliver(first, *first.names[:4])
    rig.verify(*first.names[:4])
    assert rig.neighbour(ANNA).faults >= 4
    assert not catalogue.large
    # What she says from now on is not taken.
    rig.want(files(3, "more"))
    more = [x for x in rig.log if isinstance(x, a.Ask) and x.peer == ANNA][-1]
    rig.tell(e.AskAnswered(ANNA, more.request, (HUGE,) * len(more.names)))
    assert not catalogue.large


def test_units_of_what_is_no_large_object_are_a_fault() -> None:
    rig = Rig()
    names = files(1)
    rig.join(ANNA, COMMIT)
    request = one(rig.want(names), a.RequestBatch)
    rig.join(BERT)
    rig.tell(e.HaveChanged(BERT, units=(e.UnitsHad(names[0], 0b11),)))
    rig.deliver(request)
    rig.verify(*names)
    assert rig.neighbour(BERT).faults == 1
    assert rig.neighbour(ANNA).faults == 0


# -- hashes --------------------------------------------------------------------------


def split_of(rig: Rig, *, units: int = 4) -> list[a.Action]:
    """Bring a large object under way on Anna's list; return what was done."""
    rig.tell(e.SizesReported(()))
    rig.join(ANNA, COMMIT)
    request = one(rig.want([BIG]), a.RequestBatch)
    asked = one(too_large(rig, request), a.RequestHashes)
    return rig.list_units(asked, units)


def test_only_an_accepted_page_is_checked_against() -> None:
    rig = Rig()
    actions = split_of(rig)
    accepted = one(actions, a.AcceptHashes)
    assert (accepted.peer, accepted.author, accepted.first) == (ANNA, ANNA, 0)
    assert accepted.size == 4 * UNIT_BYTES


def test_a_late_page_of_another_author_is_not_accepted() -> None:
    rig = Rig()
    rig.join(BERT, COMMIT)
    request = one(rig.want([BIG]), a.RequestBatch)
    late = one(too_large(rig, request), a.RequestHashes)
    rig.join(ANNA, COMMIT)
    actions = rig.wait(0.35)  # Bert is silent
    asked = next(x for x in only(actions, a.RequestHashes) if x.peer == ANNA)
    rig.list_units(asked, 4)
    actions = hashes(rig, late, 9 * UNIT_BYTES, count=9)
    assert not only(actions, a.AcceptHashes)
    assert rig.neighbour(BERT).faults == 1


@pytest.mark.parametrize(
    "size, count",
    [
        (UNIT_BYTES * (MAX_OBJECT_UNITS + 1), 1024),
        (LARGE_OBJECT_BYTES + 1, 4),
        (LARGE_OBJECT_BYTES + 1, 0),
    ],
)
def test_a_page_that_cannot_be_is_a_fault(size: int, count: int) -> None:
    rig = Rig()
    rig.join(ANNA, COMMIT)
    request = one(rig.want([BIG]), a.RequestBatch)
    asked = one(too_large(rig, request), a.RequestHashes)
    actions = hashes(rig, asked, size, count=count)
    assert not only(actions, a.AcceptHashes)
    assert rig.neighbour(ANNA).faults == 1


def test_numbers_of_units_are_bounded() -> None:
    tuning = Tuning(max_unit_items=100)
    rig = Rig(tuning=tuning)
    rig.join(ANNA, COMMIT)
    names = [BIG, *files(3, "large")]
    request = one(rig.want(names), a.RequestBatch)
    asked = only(too_large(rig, request), a.RequestHashes)
    while asked:
        actions = hashes(rig, asked.pop(), 30 * UNIT_BYTES, count=30)
        asked += only(actions, a.RequestHashes)
    catalogue = rig.parts.site.catalogue
    assert catalogue.unit_count == 90
    assert rig.neighbour(ANNA).faults == 1


def test_much_unproved_of_one_author_waits_unless_it_is_one_object() -> None:
    tuning = Tuning(unproved_units=50)
    rig = Rig(tuning=tuning)
    rig.join(ANNA, COMMIT)
    request = one(rig.want([BIG, *files(1, "large")]), a.RequestBatch)
    first, second = only(too_large(rig, request), a.RequestHashes)
    assert only(hashes(rig, first, 60 * UNIT_BYTES, count=60), a.AcceptHashes)
    assert not only(hashes(rig, second, 30 * UNIT_BYTES, count=30), a.AcceptHashes)
    assert rig.neighbour(ANNA).faults == 0
    for _ in range(8):
        rig.wait(0.2)
        rig.tell(e.DataArrived(ANNA, 1))
    again = only(rig.log, a.RequestHashes)[2:]
    assert [x.name for x in again] == [second.name]


# -- contradictions ------------------------------------------------------------------


def test_who_has_the_object_and_denies_a_unit_contradicts_the_list() -> None:
    """An honest neighbour cannot have a unit that a false list makes up."""
    rig = Rig()
    rig.join(BERT, COMMIT)
    actions = split_of(rig, units=400)
    units = [x for x in actions + rig.act() if isinstance(x, a.RequestUnit)]
    assert {x.peer for x in units} == {ANNA, BERT}
    rig.end(next(x for x in units if x.peer == BERT), e.Outcome.REJECTED)
    assert rig.neighbour(BERT).faults == 0
    # Anna gives nothing that would prove her list: another one has its turn.
    for _ in range(8):
        rig.now += 0.25
        rig.tell(e.StatusReported(ANNA, 1, 1))
    actions = rig.wait(0.5)
    assert only(rig.log, a.DiscardUnits)
    assert any(x.peer == BERT for x in only(rig.log, a.RequestHashes))


class Play:
    """Plays two neighbours that give lists of different objects under one name."""

    def __init__(self, rig: Rig, *, liar: DeviceId, honest: DeviceId) -> None:
        self.rig = rig
        self.units = {liar: 1000, honest: 13}
        self.given: list[int] = []
        self._seen = 0

    def in_force(self) -> DeviceId | None:
        accepted = only(self.rig.log, a.AcceptHashes)
        return accepted[-1].author if accepted else None

    def run(self, rounds: int) -> bool:
        """Answer what was asked before each round; True once the object is here."""
        for _ in range(rounds):
            fresh = self.rig.log[self._seen :]
            self._seen += len(fresh)
            for action in fresh:
                self._answer(action)
            if only(self.rig.log, a.Assemble):
                return True
            self.rig.wait(0.05)
        return False

    def _answer(self, action: a.Action) -> None:
        rig = self.rig
        match action:
            case a.Ask(peer, request, names):
                rig.tell(e.AskAnswered(peer, request, (None,) * len(names)))
            case a.RequestBatch():
                too_large(rig, action)
            case a.RequestHashes(peer, _, _, first):
                count = self.units[peer] - first
                hashes(rig, action, self.units[peer] * UNIT_BYTES, count=count)
            case a.RequestUnit(peer, _, _, unit):
                if unit >= self.units[peer]:
                    rig.end(action, e.Outcome.REJECTED)
                else:
                    rig.give_unit(action, good=peer == self.in_force())
            case a.DiscardUnits():
                self.given.append(sum(isinstance(x, a.AcceptUnit) for x in rig.log))


def test_of_two_lists_that_contradict_each_other_the_true_one_prevails() -> None:
    """Each is trusted with so much, the next time with twice as much."""
    rig = Rig(tuning=Tuning(credit_bytes=4 * UNIT_BYTES))
    rig.join(ANNA, COMMIT)
    play = Play(rig, liar=ANNA, honest=BERT)
    rig.want([BIG])
    play.run(3)
    assert play.in_force() == ANNA
    rig.join(BERT, COMMIT)
    assert play.run(2000)
    # No round of the endless list went on for long.
    assert max(play.given) < 200
    rig.verify(BIG)
    assert [(x.peer, x.blame) for x in only(rig.log, a.DropPeer)] == [
        (ANNA, a.Blame.WRONG_BYTES)
    ]


# -- units of what is not complete ---------------------------------------------------


def offered(rig: Rig, peer: DeviceId) -> int:
    """Which units of the large object a neighbour is thought to have."""
    site = rig.parts.site
    item = site.catalogue.find(BIG)
    assert item is not None
    split = rig.parts.splits.get(item)
    assert split is not None
    return (rig.neighbour(peer).holds & split.bits) >> split.first


def test_units_replace_those_that_were_said_before() -> None:
    rig = Rig()
    rig.join(BERT)
    split_of(rig)
    for units in (0b0011, 0b1011, 0b0100, 0):
        rig.tell(e.HaveChanged(BERT, units=(e.UnitsHad(BIG, units),)))
        assert offered(rig, BERT) == units
    rig.have(BERT, BIG)
    rig.tell(e.HaveChanged(BERT, units=(e.UnitsHad(BIG, 0b1),)))
    assert offered(rig, BERT) == 0b1111  # it has all of it


def test_units_that_were_withdrawn_in_time_are_no_fault() -> None:
    rig = Rig()
    rig.join(BERT)
    split_of(rig)
    actions = rig.tell(
        e.PeerLeft(ANNA), e.HaveChanged(BERT, units=(e.UnitsHad(BIG, 0b11),))
    )
    request = one(actions, a.RequestUnit)
    rig.tell(e.HaveChanged(BERT, units=(e.UnitsHad(BIG, 0),)))
    rig.end(request, e.Outcome.NOT_HAVE)
    assert rig.neighbour(BERT).faults == 0
    actions = rig.tell(e.HaveChanged(BERT, units=(e.UnitsHad(BIG, 0b11),)))
    assert {x.peer for x in only(actions, a.RequestUnit)} == {BERT}


def test_units_told_before_the_list_are_the_last_ones() -> None:
    rig = Rig()
    rig.join(BERT)
    rig.want([BIG])
    actions = rig.tell(e.HaveChanged(BERT, units=(e.UnitsHad(BIG, 0b1111),)))
    rig.tell(e.HaveChanged(BERT, units=(e.UnitsHad(BIG, 0b0110),)))
    rig.list_units(one(actions, a.RequestHashes), 4)
    assert offered(rig, BERT) == 0b0110


def test_who_passes_on_the_list_of_a_liar_did_not_lie() -> None:
    rig = Rig()
    rig.join(BERT)
    rig.tell(e.MisbehaviourSeen(ANNA))
    rig.want([BIG])
    actions = rig.tell(e.HaveChanged(BERT, units=(e.UnitsHad(BIG, 0b1),)))
    actions = rig.list_units(one(actions, a.RequestHashes), 4, author=ANNA)
    assert not only(actions, a.AcceptHashes)
    assert rig.neighbour(BERT).faults == 0


# -- lists whose pages have several authors -------------------------------------------


def page_asked(rig: Rig) -> a.RequestHashes:
    return only(rig.log, a.RequestHashes)[-1]


def mix(rig: Rig) -> a.AcceptHashes:
    """Bring a list of four units under way: two by Anna, who leaves, two by Bert."""
    rig.join(ANNA, COMMIT)
    request = one(rig.want([BIG]), a.RequestBatch)
    rig.list_units(one(too_large(rig, request), a.RequestHashes), 4, count=2)
    rig.join(BERT, COMMIT)
    rig.tell(e.PeerLeft(ANNA))
    assert (page_asked(rig).peer, page_asked(rig).first) == (BERT, 2)
    return one(rig.list_units(page_asked(rig), 4, author=BERT), a.AcceptHashes)


def units_asked(rig: Rig) -> list[a.RequestUnit]:
    """Return the requests for units that wait for an answer."""
    return [
        asked
        for asked in only(rig.log, a.RequestUnit)
        if (neighbour := rig.parts.site.neighbours.get(asked.peer)) is not None
        and asked.request in neighbour.requests
    ]


def give_all(rig: Rig) -> None:
    while asked := units_asked(rig):
        rig.give_unit(asked[0])
    assert only(rig.log, a.Assemble)


def test_a_list_is_continued_by_another_author_when_the_first_has_left() -> None:
    rig = Rig()
    assert mix(rig).author == BERT
    give_all(rig)
    rig.verify(BIG)
    assert rig.scheduler.is_complete
    assert not rig.parts.site.banned


def test_a_unit_is_its_givers_fault_if_the_page_is_the_givers_own() -> None:
    rig = Rig()
    mix(rig)
    while (asked := units_asked(rig)[0]).unit < 2:
        rig.give_unit(asked)
    rig.give_unit(asked, good=False)
    assert rig.parts.site.banned == {BERT: a.Blame.WRONG_BYTES}


def test_a_false_list_of_several_authors_is_nobodys_but_the_next_has_one() -> None:
    rig = Rig()
    mix(rig)
    give_all(rig)
    rig.tell(e.ObjectRejected(BIG))
    assert not rig.parts.site.banned
    rig.list_units(page_asked(rig), 4, author=BERT, count=2)
    actions = rig.list_units(page_asked(rig), 4, author=CLEO)
    assert not only(actions, a.AcceptHashes)
    assert rig.neighbour(BERT).faults == 0


def test_a_list_whose_only_author_left_is_given_up_for_one_that_can_be_had() -> None:
    rig = Rig()
    mix(rig)
    give_all(rig)
    rig.join(CLEO, COMMIT)
    rig.tell(e.ObjectRejected(BIG))
    asked = page_asked(rig)
    rig.list_units(asked, 4, author=asked.peer, count=2)
    other = BERT if asked.peer == CLEO else CLEO
    rig.tell(e.PeerLeft(asked.peer))
    assert (page_asked(rig).peer, page_asked(rig).first) == (other, 2)
    rig.list_units(page_asked(rig), 4, author=other)
    rig.wait(2)
    assert (page_asked(rig).peer, page_asked(rig).first) == (other, 0)
    actions = rig.list_units(page_asked(rig), 4, author=other)
    assert one(actions, a.AcceptHashes).author == other
    assert rig.neighbour(other).faults == 0
