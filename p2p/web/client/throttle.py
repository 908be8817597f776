"""Keeps all transfers of the fetching thread together below a rate; marks sockets.

Theory of operation. libcurl's own limit is one for each transfer, and most objects are
smaller than what it lets pass at once. So the write callback counts in one bucket for
all: while that is in debt it tells libcurl to pause, the transfer is held in a queue,
and the first in it goes on when the debt is paid. A paused transfer's socket is not
read, so its server waits too. What may lie unread in sockets is bounded by fewer
connections and smaller buffers, for it crosses the network all the same.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING

from p2p import qos
from p2p.rate import Bucket, on_wire

if TYPE_CHECKING:
    from p2p.web.client.transfer import Transfer

# So much may lie unread in all sockets together, as time at the rate.
_UNREAD_SECONDS = 0.3
# Less is full before it holds a window: then packets are lost.
_LEAST_UNREAD_BYTES = 32 << 10
_LEAST_CONNECTIONS = 2


class Throttle:
    """The rate that all transfers share; for the fetching thread alone."""

    def __init__(self) -> None:
        """Begin without limit and mark."""
        self._bucket = Bucket()
        self._dscp: int | None = None
        self._held: deque[Transfer] = deque()
        self._passing: Transfer | None = None

    def change(self, rate: float | None, dscp: int | None) -> bool:
        """Keep to other settings from now on; tell if that changes anything."""
        if (rate, dscp) == (self._bucket.rate, self._dscp):
            return False
        self._bucket.change(rate, time.monotonic())
        self._dscp = dscp
        return True

    @property
    def is_limited(self) -> bool:
        """Tell whether there is a rate."""
        return self._bucket.rate is not None

    def connections(self, most: int) -> int:
        """Return how many transfers may run at once, of so many."""
        rate = self._bucket.rate
        if rate is None:
            return most
        fit = int(rate * _UNREAD_SECONDS / _LEAST_UNREAD_BYTES)
        return min(most, max(_LEAST_CONNECTIONS, fit))

    def prepare(self, descriptor: int, connections: int) -> None:
        """Apply the settings to a socket, one of so many."""
        if self._dscp is None and not self.is_limited:
            return
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            if self._dscp is not None:
                qos.mark(sock, self._dscp)
            rate = self._bucket.rate
            if rate is not None:
                share = int(rate * _UNREAD_SECONDS / self.connections(connections))
                qos.bound_unread(sock, max(_LEAST_UNREAD_BYTES, share))

    def admits(self, transfer: Transfer, size: int) -> bool:
        """Tell whether bytes of a transfer may pass now; if not, it is held."""
        if self._bucket.rate is None:
            return True
        now = time.monotonic()
        if self._passing is transfer:
            self._passing = None
        elif self._held or self._passing or self._bucket.due(now) > now:
            if not transfer.held:
                transfer.held = True
                self._held.append(transfer)
            return False
        self._bucket.take(on_wire(size), now)
        return True

    def count(self, size: int) -> None:
        """Count bytes that passed beside bodies."""
        self._bucket.take(size, time.monotonic())

    def next(self) -> Transfer | None:
        """Return a transfer that may go on now, and let it."""
        if self.patience_seconds() > 0:
            return None
        transfer = self._held.popleft()
        transfer.held = False
        self._passing = transfer
        return transfer

    def forget(self, transfer: Transfer) -> None:
        """Give the turn of a transfer to others: it cannot use it."""
        if self._passing is transfer:
            self._passing = None
        if transfer.held:
            transfer.held = False
            self._held.remove(transfer)

    def patience_seconds(self) -> float:
        """Return after how long `next` has something; inf if others say that."""
        if not self._held or self._passing is not None:
            return inf
        now = time.monotonic()
        return self._bucket.due(now) - now
