"""Whether what is missing may still come, or the pull is to be given up."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from p2p.agent.neighbourhood import Neighbourhood
from p2p.errors import Error, NoSourceError
from p2p.ostree.objects import ObjectName
from p2p.swarm.action import Reason

# With neighbours that may yet get it from somewhere, or come back. Longer than the
# longest rest of one that failed (`Tuning.longest_rest`): it is asked again after it.
GIVE_UP_SECONDS = 60.0
_PAUSE_SECONDS = 0.5


class Prospects:
    """What keeps one pull from being completed, and for how long already."""

    def __init__(self, neighbours: Neighbourhood) -> None:
        """Begin with nothing that failed."""
        self._neighbours = neighbours
        self._failures: dict[ObjectName, Error] = {}
        self._stuck: dict[Reason, tuple[ObjectName, ...]] = {}
        self._moved = trio.current_time()

    def moved(self) -> None:
        """Note that something came."""
        self._moved = trio.current_time()

    def came(self, name: ObjectName) -> None:
        """Note that an object came."""
        self.moved()
        self._failures.pop(name, None)

    def failed(self, name: ObjectName, error: Error) -> None:
        """Note that the origin did not give an object; raise that if it is the end."""
        self._failures[name] = error
        if self._is_alone:
            raise error

    def stuck(self, reason: Reason, names: Iterable[ObjectName]) -> None:
        """Note all that nobody has now, for a reason."""
        self._stuck[reason] = tuple(names)

    @property
    def _is_alone(self) -> bool:
        neighbours = self._neighbours
        return neighbours.is_settled and not neighbours.has_sources

    async def watch(self) -> None:
        """Raise what went wrong once nothing is to be hoped for.

        Raises:
            OriginError, TransportError, IntegrityError: what the origin said last.
            NoSourceError: nobody has something.

        """
        while True:
            await trio.sleep(_PAUSE_SECONDS)
            lost = [name for names in self._stuck.values() for name in names]
            if not (lost or self._failures):
                continue
            waited = trio.current_time() - self._moved
            if waited >= GIVE_UP_SECONDS or (lost and self._is_alone):
                raise self._verdict(lost)

    def _verdict(self, lost: list[ObjectName]) -> Error:
        for name in lost or self._failures:
            if name in self._failures:
                return self._failures[name]
        others = f" and {len(lost) - 1} others" if len(lost) > 1 else ""
        return NoSourceError(f"no neighbour has object {lost[0]}{others}")
