"""The open requests of one direction, within what the answering side allows."""

from __future__ import annotations

from collections.abc import Iterator

from p2p.wire import messages as m
from p2p.wire.exchange import Exchange, Phase
from p2p.wire.limits import MAX_WATCHES
from p2p.wire.rule import RuleError


def cost(request: m.Request) -> int:
    """Return how many names a request makes the answering side keep."""
    match request:
        case m.Want(names=names):
            return len(names)
        case m.Ask(prefixes=prefixes):
            return len(prefixes)
        case m.GetHashes(count=count):
            return count
        case _:
            return 1


class Ledger:
    """Opens, finds and closes exchanges; ids ascend and are never used again."""

    __slots__ = ("_commits", "_names", "_open", "_watches", "last", "limits")

    def __init__(self) -> None:
        self.limits: m.Hello | None = None  # of the side that answers
        self._open: dict[int, Exchange] = {}
        self._names = self._commits = self._watches = 0
        self.last = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[m.RequestId]:
        return (exchange.request.request for exchange in self._open.values())

    def __contains__(self, request: int) -> bool:
        return request in self._open

    def obstacle(self, request: m.Request) -> str | None:
        """Return which limit forbids one more request now, None if none does."""
        if self.limits is None:
            return "a request before HELLO"
        if isinstance(request, m.Watch):
            return "too many watches" if self._watches >= MAX_WATCHES else None
        if self._commits and isinstance(request, m.GetHead | m.GetCommit):
            return "a second commit at once"
        if len(self._open) - self._watches >= self.limits.max_requests:
            return f"more than {self.limits.max_requests} requests"
        if self._names + cost(request) > self.limits.max_names:
            return f"more than {self.limits.max_names} names"
        return None

    def open(self, request: m.Request) -> None:
        """Open the exchange of a new request; RuleError past a limit."""
        if request.request <= self.last:
            raise RuleError(f"request {request.request} after {self.last}")
        obstacle = self.obstacle(request)
        if obstacle:
            raise RuleError(f"{obstacle} (request {request.request})")
        self.last = request.request
        self._open[request.request] = Exchange(request)
        self._count(request, 1)

    def find(self, request: int) -> Exchange:
        """Return the exchange of an open request; RuleError if there is none."""
        exchange = self._open.get(request)
        if exchange is None:
            raise RuleError(f"request {request} is not open")
        return exchange

    def close_if_done(self, exchange: Exchange) -> bool:
        """Forget an exchange that had its terminal answer, and tell whether it had."""
        if exchange.phase is not Phase.DONE:
            return False
        del self._open[exchange.request.request]
        self._count(exchange.request, -1)
        return True

    def clear(self) -> None:
        """Forget all exchanges: the session is over."""
        self._open.clear()
        self._names = self._commits = self._watches = 0

    def _count(self, request: m.Request, step: int) -> None:
        if isinstance(request, m.Watch):
            self._watches += step
            return
        self._names += step * cost(request)
        if isinstance(request, m.GetHead | m.GetCommit):
            self._commits += step
