"""What HTTP clients may cost a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on size, number and time; each defaults to what suits a site.

    Attributes:
        head_bytes: request line and headers.
        body_bytes: any body (TreeHub's bound); handlers set narrower ones.
        connections: at once; beyond it the longest idle one is closed.
        idle_seconds: between two requests.
        head_seconds: for a head to be complete once it has begun, and for TLS.
        stall_seconds: without a byte of body in or out.
        slowest_bytes_per_second: average at which a body must come, after
            `stall_seconds` of grace.
        linger_seconds: how long a client whose body is not wanted may go on sending.
        grace_seconds: for running requests at shutdown.
        bytes_per_second: of answers, all clients together; None is no limit.

    """

    head_bytes: int = 32 << 10
    body_bytes: int = 3 << 30
    connections: int = 1024
    idle_seconds: float = 75
    head_seconds: float = 15
    stall_seconds: float = 60
    slowest_bytes_per_second: int = 1000
    linger_seconds: float = 2
    grace_seconds: float = 10
    bytes_per_second: float | None = None

    def sweep_seconds(self) -> float:
        """Return how exactly the limits are kept: a quarter of the shortest."""
        shortest = min(
            self.idle_seconds,
            self.head_seconds,
            self.stall_seconds,
            self.linger_seconds,
        )
        return min(shortest / 4, 1)
