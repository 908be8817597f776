"""What comes of transfers, and the account of what a consumer has not dealt with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from p2p.web.client.request import Response
from p2p.web.client.throttle import Throttle

if TYPE_CHECKING:
    from p2p.web.client.transfer import Transfer


class Chunk(NamedTuple):
    """Part of a body that is longer than PIECE_BYTES; a Done or Failed follows."""

    transfer: Transfer
    data: bytes


class Done(NamedTuple):
    """The server has answered in full; the status may be one of failure."""

    transfer: Transfer
    response: Response


class Failed(NamedTuple):
    """No full answer, or its body was refused."""

    transfer: Transfer
    error: Exception


Event = Chunk | Done | Failed


class Engine(Protocol):
    """What transfers ask of the fetching thread.

    Attributes:
        throttle: the rate they share.

    """

    throttle: Throttle

    def emit(self, lane: Lane, event: Event) -> None:
        """Hand an event over."""
        ...


class Lane:
    """The transfers of one consumer, and how many bytes it has not dealt with.

    `delivered` and `blocked` are written by the fetching thread alone and `consumed`
    by the consumer alone, so none needs a lock.
    """

    __slots__ = (
        "blocked",
        "consumed",
        "delivered",
        "engine",
        "limit",
        "post",
        "waiting",
    )

    def __init__(
        self, *, limit: int, engine: Engine, post: Callable[[Event], None]
    ) -> None:
        """`post` takes the lane's events on the consumer's thread."""
        self.limit = limit
        self.engine = engine
        self.post = post
        self.delivered = 0
        self.consumed = 0
        self.blocked = False
        self.waiting: deque[Transfer] = deque()

    @property
    def full(self) -> bool:
        """Tell whether the consumer must catch up before more is fetched for it."""
        return self.delivered - self.consumed >= self.limit

    @property
    def drained(self) -> bool:
        """Tell whether it has caught up enough for a blocked lane to go on."""
        return self.delivered - self.consumed <= self.limit // 2
