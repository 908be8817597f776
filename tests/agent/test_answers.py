"""Which messages of a neighbour are answers to what it was asked."""

from p2p.agent.answers import Answers
from p2p.agent.scratch import Scratch
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.wire import messages as m
from tests.swarm.rig import ANNA, files, number

NAMES = files(5)
NAME = NAMES[0]


def test_a_cancel_is_of_their_request_with_the_number_of_ours() -> None:
    told: list[e.Event] = []
    answers = Answers(told.append, lambda _: None, Scratch(""))
    answers.expect(a.RequestBatch(ANNA, number(7), (NAME,), 1000), 1)
    for theirs in (m.Cancel(number(1)), m.GetCommit(number(1), NAME.checksum)):
        assert not answers.take(ANNA, theirs)
    assert not told
    assert answers.take(ANNA, m.Batch(number(1), (m.Miss.NOT_HAVE,)))
    assert [event for event in told if isinstance(event, e.RequestEnded)] == [
        e.RequestEnded(
            ANNA, number(7), e.Outcome.DONE, misses=((NAME, m.Miss.NOT_HAVE),)
        )
    ]


def test_units_of_several_objects_are_one_event() -> None:
    told: list[e.Event] = []
    answers = Answers(told.append, lambda _: None, Scratch(""))
    answers.closures[NAME.checksum] = list(NAMES)
    answers.expect(a.Watch(ANNA, number(7), NAME.checksum), 1)
    units = m.UnitMap(3, b"\xc0"), m.UnitMap(1, b"\0\x80"), m.UnitMap(5, b"\x80")
    assert answers.take(ANNA, m.Units(number(1), units))
    had = e.UnitsHad(NAMES[3], 0b11), e.UnitsHad(NAMES[1], 1 << 8)
    assert told == [e.HaveChanged(ANNA, units=had)]
