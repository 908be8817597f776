"""How much is asked of one neighbour at once."""

from collections import Counter

from p2p.ostree.objects import ObjectName
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.bits import pack
from p2p.wire.limits import MAX_ASK_PREFIXES, UNIT_BYTES
from p2p.wire.messages import Held, HeldCommit, Miss
from tests.swarm.rig import ANNA, BERT, BIG, COMMIT, OTHER, Rig, files, one

Question = a.Ask | a.RequestBatch | a.RequestHashes


def join(rig: Rig, *, max_requests: int = 256, max_names: int) -> list[a.Action]:
    holdings = e.HoldingsChanged(ANNA, (HeldCommit(COMMIT, Held.COMPLETE),))
    return rig.tell(e.PeerJoined(ANNA, max_requests, max_names), holdings)


def names_of(question: Question) -> int:
    if isinstance(question, a.RequestHashes):
        return question.count
    return len(question.names)


def answer(rig: Rig, question: Question, size: int) -> list[a.Action]:
    match question:
        case a.Ask(peer, request, names):
            return rig.tell(e.AskAnswered(peer, request, [size] * len(names)))
        case a.RequestBatch():
            actions = rig.deliver(question, size=size)
            return actions + rig.verify(*question.names)
        case a.RequestHashes():
            units = -(-size // UNIT_BYTES)
            return rig.list_units(question, units, count=question.count)


def finish(
    rig: Rig, actions: list[a.Action], size: int, *, requests: int, names: int
) -> list[Question]:
    """Answer one question after the other; there are never more than so many."""
    asked: list[Question] = []
    waiting: list[Question] = []
    while True:
        waiting += [x for x in actions if isinstance(x, Question)]
        assert len(waiting) <= requests
        assert sum(map(names_of, waiting)) <= names
        if not waiting:
            return asked
        question = waiting.pop(0)
        asked.append(question)
        actions = answer(rig, question, size)
        actions += rig.wait(0.01)


def test_a_neighbour_is_asked_for_no_more_names_than_it_allows() -> None:
    rig = Rig()
    wanted = files(3 * MAX_ASK_PREFIXES)
    actions = join(rig, max_names=MAX_ASK_PREFIXES) + rig.want(wanted)
    asked = finish(rig, actions, 1000, requests=256, names=MAX_ASK_PREFIXES)
    batches = [question for question in asked if isinstance(question, a.RequestBatch)]
    assert sum(map(names_of, batches)) == len(wanted)


def test_a_neighbour_is_asked_no_more_at_once_than_it_allows() -> None:
    rig = Rig()
    wanted = files(100)
    actions = join(rig, max_requests=4, max_names=MAX_ASK_PREFIXES) + rig.want(wanted)
    asked = finish(rig, actions, UNIT_BYTES // 2, requests=4, names=MAX_ASK_PREFIXES)
    batches = [question for question in asked if isinstance(question, a.RequestBatch)]
    assert sum(map(names_of, batches)) == len(wanted)


def refuse(rig: Rig, names: list[ObjectName], size: int) -> list[a.RequestHashes]:
    """Say of all of these how large they are, and that they are not given whole."""
    actions = join(rig, max_names=MAX_ASK_PREFIXES) + rig.want(names)
    (ask,) = (x for x in actions if isinstance(x, a.Ask))
    (batch,) = (x for x in actions if isinstance(x, a.RequestBatch))
    answer(rig, ask, size)
    misses = tuple((name, Miss.TOO_LARGE) for name in batch.names)
    actions = rig.end(batch, e.Outcome.DONE, misses=misses)
    return [x for x in actions if isinstance(x, a.RequestHashes)]


def test_so_many_hashes_are_asked_for_as_the_object_should_have() -> None:
    large = files(9)
    pages = refuse(Rig(), large, 40 * UNIT_BYTES)
    assert [page.count for page in pages] == [40] * len(pages)
    assert 1 <= len(pages) < len(large), "each costs the giver a whole read"


def test_hashes_of_an_object_whose_size_was_told_wrong_come_in_pages() -> None:
    rig = Rig()
    (page,) = refuse(rig, files(1), 4 * UNIT_BYTES)
    assert (page.first, page.count) == (0, 4)
    actions = rig.list_units(page, 100, count=4)
    (page,) = (x for x in actions if isinstance(x, a.RequestHashes))
    assert (page.first, page.count) == (4, 96)


def test_rare_units_next_to_each_other_are_all_as_likely_to_be_asked_for() -> None:
    rare, takers = range(100, 104), 60
    asked: Counter[int] = Counter()
    for seed in range(takers):
        rig = Rig(seed)
        rig.join(ANNA, COMMIT)
        rig.join(BERT, OTHER)
        rig.tell(e.SizesReported(((BIG, 200 * UNIT_BYTES),)))
        page = one(rig.want([BIG]), a.RequestHashes)
        others = pack(set(range(200)) - set(rare))
        rig.tell(e.HaveChanged(BERT, units=(e.UnitsHad(BIG, others),)))
        actions = rig.list_units(page, 200)
        units = {x.peer: x.unit for x in actions if isinstance(x, a.RequestUnit)}
        assert units[BERT] in set(range(200)) - set(rare)
        asked[units[ANNA]] += 1
    assert set(asked) == set(rare)
    assert max(asked.values()) < takers / 2
