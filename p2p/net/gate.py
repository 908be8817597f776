"""Which mDNS packets of an interface are worth reading; pure, time is passed in.

Dropped are packets from off the link (RFC 6762 §11: they may only aim at us), packets
that are not about our service (a busy office has thousands of records that nobody
here needs), and floods.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from enum import Enum

from p2p.net.admission import Rates
from p2p.net.interfaces import Interface

# 100 agents that start at once send each host some 15 packets apiece within 6 s.
SOURCE_PER_SECOND, SOURCE_BURST, SOURCES = 20.0, 100.0, 1024
ALL_PER_SECOND, ALL_BURST = 500.0, 5000.0
# Labels of our service, and of the question which services there are.
_MARKS = (b"_ostree-p2p", b"_dns-sd")


class _Where(Enum):
    FAR = 0
    NEAR = 1
    HERE = 2


class Gate:
    """Decides which packets of one interface are worth reading.

    Attributes:
        counts: packets that came, and those dropped, by short reason.

    """

    def __init__(
        self, interface: Interface, own_label: str, asking: Callable[[], bool]
    ) -> None:
        """Guard an interface; while `asking`, answers may be about anything."""
        self._interface = interface
        self._marks = (*_MARKS, own_label.encode())
        self._asking = asking
        self._seen: dict[str, _Where] = {}
        self._sources: Rates[str] = Rates(
            per_second=SOURCE_PER_SECOND, burst=SOURCE_BURST, keys=SOURCES
        )
        self._all: Rates[None] = Rates(
            per_second=ALL_PER_SECOND, burst=ALL_BURST, keys=1
        )
        self.counts: Counter[str] = Counter()

    def passes(self, data: bytes, source: str, scope: int, now: float) -> bool:
        """Whether to read a packet from this address, in seconds of any clock."""
        self.counts["packets"] += 1
        reason = self._fault(data, source, scope, now)
        if reason:
            self.counts[reason] += 1
        return not reason

    def _fault(self, data: bytes, source: str, scope: int, now: float) -> str:
        where = self._where(source)
        if where is _Where.FAR or scope not in (0, self._interface.index):
            return "off the link"
        if not self._asking():
            lowered = data.lower()
            if not any(mark in lowered for mark in self._marks):
                return "not about us"
        # Agents on this machine share its address.
        if where is _Where.NEAR and not self._sources.take(source, now):
            return "a flood"
        return "" if self._all.take(None, now) else "a flood"

    def _where(self, source: str) -> _Where:
        where = self._seen.get(source)
        if where is None:
            if len(self._seen) >= SOURCES:
                self._seen.clear()
            address = ipaddress.ip_address(source.partition("%")[0])
            if self._interface.holds(address):
                where = _Where.HERE
            elif self._interface.reaches(address):
                where = _Where.NEAR
            else:
                where = _Where.FAR
            self._seen[source] = where
        return where
