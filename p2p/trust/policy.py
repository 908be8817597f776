"""The rules a commit must pass beside its signature; pure, time is passed in.

The signature says who made a commit. Here is decided whether it belongs to the ref
it was asked for, is newer than what we have, is not from the future and was not
withdrawn. Bindings as in libostree's `_ostree_repo_verify_bindings`, stricter for
what a neighbour brings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from p2p.errors import BindingError, FutureError, RevokedError, RollbackError
from p2p.ostree.objects import Checksum, Commit

REF_BINDING = "ostree.ref-binding"
COLLECTION_BINDING = "ostree.collection-binding"
# Build machines and devices disagree by minutes, and by a day where one of them
# keeps local time as if it were UTC.
MAX_AHEAD_SECONDS = 86400
# The first second of the year 10000, which no calendar here can print.
_END_OF_CALENDAR = 253402300800
_NAMED_REFS = 5
_NAME_LENGTH = 80


class Source(StrEnum):
    """Who said that a ref's head is this commit."""

    ORIGIN = "origin"
    NEIGHBOUR = "neighbour"


class Head(NamedTuple):
    """A commit as the tip of a ref; `timestamp` is seconds since 1970 in UTC."""

    checksum: Checksum
    timestamp: int


@dataclass(frozen=True, slots=True)
class Clock:
    """What this device knows about the time, in seconds since 1970 in UTC.

    Attributes:
        now: what the clock says.
        trusted: whether it was set from a source that is believed.
        floor: a time that has passed for certain, see `p2p.trust.clock`.

    """

    now: float
    trusted: bool
    floor: int = 0


class ClockCheck(StrEnum):
    """Whether a commit's timestamp was compared with the clock, or why not."""

    PASSED = "passed"
    CLOCK_UNTRUSTED = "skipped: the clock was not set from a trusted source"
    CLOCK_BEHIND = "skipped: the clock is behind a time that has certainly passed"


def check_bindings(
    commit: Commit, *, ref: str | None, collection_id: str | None, source: Source
) -> None:
    """Raise BindingError unless the commit may be this ref's head.

    Args:
        commit: the commit, its signature verified.
        ref: the ref without its remote, or None if asked for by checksum.
        collection_id: the remote's, or None if it has none.
        source: a neighbour's head must name its ref; the origin's may lack a
            binding, as for libostree, unless the remote has a collection id.

    """
    refs = commit.get(REF_BINDING, "as")
    if refs is None:
        if ref is not None and source is Source.NEIGHBOUR:
            raise BindingError(
                f"the commit names no ref, so a neighbour cannot vouch for {_show(ref)}"
            )
        if collection_id is not None:
            raise BindingError(
                "the commit names no ref, but the remote has a collection id"
            )
        return
    if ref is not None and ref not in refs:
        raise BindingError(f"the commit is for {_list(refs)}, not for {_show(ref)}")
    if collection_id is not None:
        _check_collection(commit, collection_id)


def _check_collection(commit: Commit, expected: str) -> None:
    found = commit.get(COLLECTION_BINDING, "s")
    if found is None:
        raise BindingError(
            f"the commit names no collection; the remote's is {_show(expected)}"
        )
    if found != expected:
        raise BindingError(
            f"the commit is for collection {_show(found)}; the remote's is "
            f"{_show(expected)}"
        )


def check_not_older(new: Head, current: Head | None, source: Source) -> None:
    """Raise RollbackError if the new head would take the ref back in time.

    From the origin equal times pass. From a neighbour a different commit must be
    strictly newer: two commits of one second would replace each other for ever.
    """
    if current is None or new.checksum == current.checksum:
        return
    if new.timestamp > current.timestamp:
        return
    if new.timestamp == current.timestamp and source is Source.ORIGIN:
        return
    relation = "as old as" if new.timestamp == current.timestamp else "older than"
    raise RollbackError(
        f"commit {new.checksum} of {format_time(new.timestamp)} is {relation} "
        f"{current.checksum} of {format_time(current.timestamp)}, the current one"
    )


def check_clock(timestamp: int, clock: Clock) -> ClockCheck:
    """Return whether the timestamp was checked; FutureError if it is too far ahead.

    A clock that is not trusted, or behind its own floor, can prove nothing: the
    check is skipped and the answer says so.
    """
    if not clock.trusted:
        return ClockCheck.CLOCK_UNTRUSTED
    if clock.now < clock.floor:
        return ClockCheck.CLOCK_BEHIND
    if timestamp > clock.now + MAX_AHEAD_SECONDS:
        raise FutureError(
            f"the commit is of {format_time(timestamp)}, more than a day ahead of "
            f"this device's clock: {format_time(int(clock.now))}"
        )
    return ClockCheck.PASSED


def check_not_revoked(checksum: Checksum, withdrawn: Collection[Checksum]) -> None:
    """Raise RevokedError if the publisher withdrew this commit."""
    if checksum in withdrawn:
        raise RevokedError(f"commit {checksum} was withdrawn by its publisher")


def format_time(timestamp: int) -> str:
    """Return a commit's timestamp for people, whatever its 64 bits hold."""
    if 0 <= timestamp < _END_OF_CALENDAR:
        return datetime.fromtimestamp(timestamp, UTC).isoformat(" ")
    return f"{timestamp} seconds after 1970"


def _show(name: str) -> str:
    return repr(name[:_NAME_LENGTH])


def _list(refs: Iterable[str]) -> str:
    names = [_show(ref) for ref in refs]
    more = len(names) - _NAMED_REFS
    named = ", ".join(names[:_NAMED_REFS]) or "no ref"
    return f"{named} and {more} more" if more > 0 else named
