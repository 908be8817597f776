"""What a device knows about the time from its repository, and from this program."""

from __future__ import annotations

from collections.abc import Callable

from p2p.errors import RepositoryError
from p2p.ostree.repo import Repo
from p2p.trust.policy import MAX_AHEAD_SECONDS, Clock

RELEASED = 1_790_000_000
"""A time before this release was made, in September 2026: it has passed for certain."""


def clock_floor(repo: Repo) -> int:
    """Return a time that has passed for certain, in seconds since 1970.

    It is not before this release, nor before a day before the newest head that was
    pulled into the repository: whoever pulled that compared it with a clock (see
    `check_clock`).
    """
    floor = RELEASED
    for _, checksum in repo.refs.all("remotes/"):
        try:
            floor = max(floor, repo.load_commit(checksum).timestamp - MAX_AHEAD_SECONDS)
        except RepositoryError:
            # A commit that is gone or damaged tells no time.
            continue
    return floor


def device_clock(repo: Repo) -> Callable[[float], Clock]:
    """Return what makes a `Clock` of the time now, in seconds since 1970."""
    floor = clock_floor(repo)
    return lambda now: Clock(now, trusted=True, floor=floor)
