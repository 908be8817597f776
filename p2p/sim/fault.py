"""What goes wrong in a simulated site, and when: the format of a faults file; pure.

One event a line: a time, what happens, and to whom. docs/simulator.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from p2p.errors import ConfigError
from p2p.rate import parse_rate
from p2p.sim.villain import VILLAINS


class Mishap(Enum):
    """What happens."""

    KILL = "kill"
    SILENCE = "silence"
    RESUME = "resume"
    RESET = "reset"
    RATE = "rate"
    CUT = "cut"
    HEAL = "heal"
    ORIGIN_DOWN = "origin-down"
    ORIGIN_UP = "origin-up"
    VILLAIN = "villain"


BUSIEST = "busiest"
"""The device that fetched the most from the origin until then."""
RANDOM = "random"
"""Any device that is up then."""
ORIGIN = "origin"

# What each is said about, for people.
_ARGUMENTS = {
    Mishap.KILL: ("DEVICE",),
    Mishap.SILENCE: ("DEVICE",),
    Mishap.RESUME: ("DEVICE",),
    Mishap.RESET: ("DEVICE", "DEVICE"),
    Mishap.RATE: ("DEVICE", "RATE"),
    Mishap.VILLAIN: ("KIND",),
}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(s|ms|%)?")
_UNITS = {None: 1.0, "s": 1.0, "ms": 0.001, "%": 0.01}
_NAME = re.compile(r"(?:device|holder|villain)-[1-9]\d*")

VILLAIN_KINDS = {
    re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower(): kind for kind in VILLAINS
}
"""Neighbours that lie or do not do what they should, by the name in a faults file."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of a faults file.

    Attributes:
        time: seconds, or a share of the bound if `is_share`.
        who: the devices, `busiest`, `random`, or `origin` for a rate.
        rate: bytes/s, of a RATE.
        kind: of a VILLAIN.
        where: file and line, for errors.

    """

    time: float
    is_share: bool
    mishap: Mishap
    who: tuple[str, ...] = ()
    rate: float = 0.0
    kind: str = ""
    where: str = ""

    def at(self, bound: float) -> float:
        """Return when it happens, in seconds, if the bound is so many."""
        return self.time * bound if self.is_share else self.time


def parse_faults(text: str, path: str) -> tuple[Fault, ...]:
    """Return the faults in a file, in its order.

    Raises:
        ConfigError: a line is wrong; it is named.

    """
    return tuple(_parse(text, path))


def _parse(text: str, path: str) -> Iterator[Fault]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            yield _parse_line(words, f"{path}:{number}")


def _parse_line(words: list[str], where: str) -> Fault:
    if len(words) == 1:
        raise _error(where, f"{words[0]!r}: a time and an event are needed")
    match = _TIME.fullmatch(words[0])
    if match is None:
        raise _error(where, f"{words[0]!r} is no time; say 2.5s, 250ms or 40%")
    mishap = _mishap(words[1], where)
    expected = _ARGUMENTS.get(mishap, ())
    given = words[2:]
    if len(given) != len(expected):
        usage = " ".join((mishap.value, *expected))
        raise _error(where, f"write it as `TIME {usage}`")
    time = float(match[1]) * _UNITS[match[2]]
    is_share = match[2] == "%"
    if mishap is Mishap.VILLAIN:
        _check_kind(given[0], where)
        return Fault(time, is_share, mishap, kind=given[0], where=where)
    if mishap is Mishap.RATE:
        rate = parse_rate(given[1], where=where)
        who = given[0] if given[0] == ORIGIN else _device(given[0], where)
        return Fault(time, is_share, mishap, (who,), rate, where=where)
    devices = tuple(_device(name, where) for name in given)
    return Fault(time, is_share, mishap, devices, where=where)


def _mishap(word: str, where: str) -> Mishap:
    try:
        return Mishap(word)
    except ValueError:
        known = ", ".join(mishap.value for mishap in Mishap)
        raise _error(where, f"{word!r} is no event; there are {known}") from None


def _check_kind(word: str, where: str) -> None:
    if word not in VILLAIN_KINDS:
        known = ", ".join(VILLAIN_KINDS)
        raise _error(where, f"{word!r} is no villain; there are {known}")


def _device(word: str, where: str) -> str:
    if word not in {BUSIEST, RANDOM} and not _NAME.fullmatch(word):
        raise _error(
            where,
            f"{word!r} is no device; say device-1, holder-1, {BUSIEST} or {RANDOM}",
        )
    return word


def _error(where: str, reason: str) -> ConfigError:
    return ConfigError(where, reason, hint="docs/simulator.md describes the format.")
