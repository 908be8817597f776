"""The life of a wanted thing, as a table; docs/swarm.md draws it.

A thing ("item") is an object, or one unit of a large object. Large objects are split
into units once a neighbour gave their hashes; the object itself waits meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Final


class State(IntEnum):
    """Where an item is."""

    OPEN = 0
    """Wanted, and asked of nobody now."""
    ASKED = 1
    """Asked of a neighbour."""
    FETCHING = 2
    """Asked of the origin."""
    LANDED = 3
    """Delivered; the writer has not judged it yet."""
    DONE = 4
    """Verified and here (a unit: its hash was right)."""
    SPLIT = 5
    """A large object that arrives as units."""
    HIDDEN = 6
    """A unit that may not be asked for: no hash yet, or the origin sends it all."""
    FORGOTTEN = 7
    """Not wanted any more."""


class Step(Enum):
    """What moves an item on."""

    ASK = "asked"
    RETURN = "request ended without it"
    FETCH = "asked of the origin"
    GIVE_UP = "origin failed or was cancelled"
    RESUME = "origin failed; units are kept"
    ARRIVE = "delivered"
    PASS = "unit's hash is right"  # noqa: S105 - no password
    SPLIT = "unit hashes came"
    SHOW = "unit may be asked for"
    HIDE = "unit may not be asked for"
    JOIN = "all units are here"
    VERIFY = "verified"
    REJECT = "checksum is wrong"
    UNSPLIT = "unit hashes were false"
    FIND = "already here"
    FORGET = "not wanted any more"
    RETIRE = "object is here or units were false"
    REMEMBER = "wanted again"


_OPEN, _ASKED, _FETCHING, _LANDED = (
    State.OPEN,
    State.ASKED,
    State.FETCHING,
    State.LANDED,
)
_DONE, _SPLIT, _HIDDEN, _GONE = State.DONE, State.SPLIT, State.HIDDEN, State.FORGOTTEN

LIFECYCLE: Final[Mapping[Step, tuple[tuple[State, ...], State]]] = {
    Step.ASK: ((_OPEN,), _ASKED),
    Step.RETURN: ((_ASKED,), _OPEN),
    Step.FETCH: ((_OPEN, _SPLIT), _FETCHING),
    Step.GIVE_UP: ((_FETCHING,), _OPEN),
    Step.RESUME: ((_FETCHING, _LANDED), _SPLIT),
    Step.ARRIVE: ((_OPEN, _ASKED, _FETCHING), _LANDED),
    Step.PASS: ((_OPEN, _ASKED, _HIDDEN), _DONE),
    Step.SPLIT: ((_OPEN, _ASKED), _SPLIT),
    Step.SHOW: ((_HIDDEN,), _OPEN),
    Step.HIDE: ((_OPEN,), _HIDDEN),
    Step.JOIN: ((_SPLIT,), _LANDED),
    Step.VERIFY: ((_LANDED,), _DONE),
    Step.REJECT: ((_LANDED,), _OPEN),
    Step.UNSPLIT: ((_SPLIT, _LANDED), _OPEN),
    Step.FIND: ((_OPEN, _GONE), _DONE),
    Step.FORGET: ((_OPEN,), _GONE),
    Step.RETIRE: ((_OPEN, _ASKED, _HIDDEN, _DONE), _GONE),
    Step.REMEMBER: ((_GONE,), _OPEN),
}
"""From which states a step moves an item, and where to; elsewhere it does nothing."""
