"""How far each direction of a session is, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from p2p.wire.messages import Bye, Hello
from p2p.wire.rule import RuleError


class Side(Enum):
    """How far one direction of the session is."""

    START = "start"
    OPEN = "open"
    ENDED = "ended"
    FAILED = "failed"


class Speech(Enum):
    """What moves a direction on."""

    HELLO = "HELLO"
    BYE = "BYE"
    OTHER = "any other"


SESSION: Final[Mapping[Side, Mapping[Speech, Side]]] = {
    Side.START: {Speech.HELLO: Side.OPEN},
    Side.OPEN: {Speech.OTHER: Side.OPEN, Speech.BYE: Side.ENDED},
    Side.ENDED: {},
    Side.FAILED: {},
}
"""Both directions alike. Any other message also needs the reverse direction open."""

_SPEECH = {Hello: Speech.HELLO, Bye: Speech.BYE}


def step(speaker: Side, listener: Side, message: object) -> Side:
    """Return where the speaking direction goes; RuleError if it may not speak so."""
    speech = _SPEECH.get(type(message), Speech.OTHER)
    after = SESSION[speaker].get(speech)
    if after is None:
        raise RuleError(f"{speech.value} message in state {speaker.value}")
    if speech is Speech.OTHER and listener is not Side.OPEN:
        raise RuleError(f"{speech.value} message to a side in state {listener.value}")
    return after
