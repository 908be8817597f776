"""How much of this device's attention a stranger may take; pure, time is passed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Rates(Generic[K]):
    """One token bucket a key, for a bounded number of keys.

    A key that was forgotten begins with a full bucket, so whoever can invent keys
    needs a second bound on their sum.
    """

    __slots__ = ("_buckets", "_burst", "_keys", "_per_second")

    def __init__(self, *, per_second: float, burst: float, keys: int) -> None:
        """Allow `burst` at once, `per_second` for long; remember `keys` of them."""
        self._per_second = per_second
        self._burst = burst
        self._keys = keys
        self._buckets: dict[K, tuple[float, float]] = {}

    def take(self, key: K, now: float) -> bool:
        """Whether the key may do one more thing at this time, in seconds."""
        tokens, since = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - since) * self._per_second)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - allowed, now)
        if len(self._buckets) > self._keys:
            del self._buckets[next(iter(self._buckets))]
        return allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenLimits:
    """What one listener spends on others.

    Attributes:
        handshake: seconds a peer has for TLS.
        half_open: handshakes at once; one more pushes out the oldest, so that those
            who never finish cannot keep others away.
        half_open_each: handshakes at once from one address.
        contacts: connections that are through, at once.
        contacts_each: the same from one address; several devices may share one.
        per_second: new connections a second from one address, for long.
        burst: new connections at once from one address.
        addresses: how many addresses are remembered for the rate.

    """

    handshake: float = 5.0
    half_open: int = 64
    half_open_each: int = 16
    contacts: int = 512
    contacts_each: int = 64
    per_second: float = 5.0
    burst: int = 40
    addresses: int = 1024


class Refusal(StrEnum):
    """Why a connection was closed before TLS."""

    RATE = "too many connections a second from one address"
    HALF_OPEN = "too many handshakes at once from one address"
    CONTACTS = "too many connections"
    NOT_HERE = "the address is not on a chosen network"


class Admission:
    """Counts who is at the door and who is inside."""

    def __init__(self, limits: ListenLimits) -> None:
        """Begin with nobody."""
        self._limits = limits
        self._rates: Rates[str] = Rates(
            per_second=limits.per_second, burst=limits.burst, keys=limits.addresses
        )
        self._half_open: dict[object, tuple[str, Callable[[], object]]] = {}
        self._at_door: Counter[str] = Counter()
        self._inside: Counter[str] = Counter()
        self.evicted = 0

    def knock(self, address: str, now: float) -> Refusal | None:
        """Return why a new connection from the address is refused; None: come in."""
        limits = self._limits
        if not self._rates.take(address, now):
            return Refusal.RATE
        if self._at_door[address] >= limits.half_open_each:
            return Refusal.HALF_OPEN
        inside = self._inside[address] >= limits.contacts_each
        if inside or self._inside.total() >= limits.contacts:
            return Refusal.CONTACTS
        return None

    def begin(self, key: object, address: str, evict: Callable[[], object]) -> None:
        """Count a handshake; the oldest one is evicted if there are too many."""
        self._half_open[key] = (address, evict)
        self._at_door[address] += 1
        if len(self._half_open) > self._limits.half_open:
            oldest = next(iter(self._half_open))
            _, evict_oldest = self._half_open[oldest]
            self.end(oldest)
            self.evicted += 1
            evict_oldest()

    def end(self, key: object) -> None:
        """Count the end of a handshake, however it went; twice is once."""
        address, _ = self._half_open.pop(key, ("", None))
        _less(self._at_door, address)

    def enter(self, address: str) -> None:
        """Count a connection that is through."""
        self._inside[address] += 1

    def leave(self, address: str) -> None:
        """Count the end of a connection that was through."""
        _less(self._inside, address)


def _less(counter: Counter[str], address: str) -> None:
    """Subtract one and forget who is at none, so that memory stays bounded."""
    if counter[address] > 1:
        counter[address] -= 1
    else:
        del counter[address]
