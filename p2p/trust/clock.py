"""What a device knows about the time from its repository."""

from __future__ import annotations

from collections.abc import Callable

from p2p.errors import RepositoryError
from p2p.ostree.repo import Repo
from p2p.trust.policy import MAX_AHEAD_SECONDS, Clock


def device_clock(repo: Repo) -> Callable[[float], Clock]:
    """Return what makes a `Clock` of the time now, in seconds since 1970.

    A day before the newest head that was pulled into the repository has passed for
    certain: whoever pulled it compared it with a clock (see `check_clock`).
    """
    floor = 0
    for _, checksum in repo.refs.all("remotes/"):
        try:
            floor = max(floor, repo.load_commit(checksum).timestamp - MAX_AHEAD_SECONDS)
        except RepositoryError:
            # A commit that is gone or damaged tells no time.
            continue
    return lambda now: Clock(now, trusted=True, floor=floor)
