"""When a file that could not be had is asked for again, and from which mirror."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from p2p.errors import (
    Error,
    FormatError,
    IntegrityError,
    LimitError,
    OriginError,
    OriginNotFoundError,
    TransportError,
)
from p2p.web.client.failure import TlsError
from p2p.web.client.mirrors import Mirror

MAX_RETRY_AFTER_SECONDS = 600.0
"""Longer waits that a server asks for are cut to this."""
_NEVER_BETTER = (501, 505)  # not implemented, version not supported


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential back-off with full jitter; times are in seconds.

    Five tries are libostree's `network-retries`. Without jitter all devices of a site
    would come back to a restarted server in the same moment.
    """

    tries: int = 5
    first: float = 1.0
    longest: float = 60.0
    random: Random = field(default_factory=Random)

    def delay(self, tried: int) -> float:
        """Return how long to wait after the nth try has failed."""
        ceiling = min(self.longest, self.first * 2 ** (tried - 1))
        return self.random.uniform(0, ceiling)


def is_transient(error: Error) -> bool:
    """Tell whether asking the same server again may help."""
    match error:
        case TlsError() | LimitError():
            return False
        case TransportError() | FormatError() | IntegrityError():
            return True
        case OriginError(status=int(status)):
            busy = status >= 500 and status not in _NEVER_BETTER
            return busy or status in (408, 429)
    return False


class Course:
    """What has been tried for one file, and what comes next.

    Every mirror is asked once in a try; stock ostree asks the next mirror only where
    one answers with an error status, here also where a connection fails or the file
    is corrupt.

    Attributes:
        mirror: which is to be asked now.
        tried: how often all mirrors were asked.
        error: what to report if nothing helps.

    """

    __slots__ = (
        "_left",
        "_mirrors",
        "_retry",
        "_transient",
        "error",
        "mirror",
        "tried",
    )

    def __init__(
        self,
        mirrors: Callable[[], Sequence[Mirror]],
        retry: Retry,
        *,
        first: Mirror | None = None,
    ) -> None:
        """`mirrors` returns them in the order to ask them, at least one.

        `first` is asked before, whatever the order.
        """
        self._mirrors = mirrors
        self._retry = retry
        self.tried = 0
        self.error: Error | None = None
        self._left: list[Mirror] = []
        self.mirror: Mirror
        self.begin()
        if first is not None and first is not self.mirror:
            self._left = [self.mirror, *(m for m in self._left if m is not first)]
            self.mirror = first

    def begin(self) -> None:
        """Turn to the first mirror again."""
        self.mirror, *self._left = self._mirrors()
        self._transient = False

    def next_mirror(self, error: Error) -> bool:
        """Turn to the next mirror, if there is one that was not asked in this try."""
        self._transient = self._transient or is_transient(error)
        # Another mirror's "not found" tells less than what went wrong at this one.
        if self.error is None or not isinstance(error, OriginNotFoundError):
            self.error = error
        if self._left:
            self.mirror = self._left.pop(0)
            return True
        return False

    def next_try(self, retry_after: float | None) -> float | None:
        """Begin anew; return how long to wait before, None if it is hopeless.

        `retry_after` is for how many seconds the server asks to be left alone.
        """
        self.tried += 1
        if not self._transient or self.tried >= self._retry.tries:
            return None
        self.begin()
        if retry_after is not None:
            return min(retry_after, MAX_RETRY_AFTER_SECONDS)
        return self._retry.delay(self.tried)

    def final_error(self) -> Error:
        """Return the error to report, with the number of tries if that was several."""
        if self.error is None:
            raise AssertionError("nothing has failed")
        if self.tried > 1:
            self.error.args = (f"{self.error} (tried {self.tried} times)",)
        return self.error
