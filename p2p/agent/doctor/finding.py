"""What a check found; pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from p2p.errors import Error


class Level(StrEnum):
    """How bad it is: WARN works, but not for long or not as one may think."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at, in a word or two.
        level: how bad it is.
        message: what there is.
        remedy: what to do; empty only if nothing is to be done.

    """

    check: str
    level: Level
    message: str
    remedy: str = ""


def ok(check: str, message: str) -> Finding:
    """Return that all is well."""
    return Finding(check, Level.OK, message)


def warn(check: str, message: str, remedy: str) -> Finding:
    """Return that something is not as it should be."""
    return Finding(check, Level.WARN, message, remedy)


def fail(check: str, message: str, remedy: str) -> Finding:
    """Return that something does not work."""
    return Finding(check, Level.FAIL, message, remedy)


def failed(check: str, error: Error, *, before: str = "") -> Finding:
    """Return that it does not work because of an error, with its own remedy."""
    return fail(check, before + str(error), error.hint)
