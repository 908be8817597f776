"""How far each direction is."""

import pytest

from p2p.wire import messages as m
from p2p.wire.rule import RuleError
from p2p.wire.session import SESSION, Side, step
from tests.wire.samples import HELLO

BYE = m.Bye(m.Farewell.LEAVING)


def test_every_state_is_in_the_table() -> None:
    assert set(SESSION) == set(Side)


def test_hello_others_bye_is_the_only_order() -> None:
    assert step(Side.START, Side.START, HELLO) is Side.OPEN
    assert step(Side.OPEN, Side.OPEN, m.Ping(1)) is Side.OPEN
    assert step(Side.OPEN, Side.START, BYE) is Side.ENDED


@pytest.mark.parametrize(
    "speaker, listener, message",
    [
        (Side.START, Side.OPEN, BYE),
        (Side.START, Side.OPEN, m.Ping(1)),
        (Side.OPEN, Side.OPEN, HELLO),
        (Side.OPEN, Side.START, m.Ping(1)),
        (Side.OPEN, Side.ENDED, m.Ping(1)),
        (Side.OPEN, Side.FAILED, m.Ping(1)),
        (Side.ENDED, Side.OPEN, BYE),
        (Side.FAILED, Side.OPEN, BYE),
    ],
)
def test_anything_else_is_refused(
    speaker: Side, listener: Side, message: m.Message
) -> None:
    with pytest.raises(RuleError):
        step(speaker, listener, message)
