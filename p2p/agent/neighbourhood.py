"""The sessions with neighbours, as far as fetching needs them; and having none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from p2p.swarm import action as a
from p2p.swarm.gossip import Member
from p2p.wire import messages as m


class Listening(Protocol):
    """What wants to know of neighbours: the fetching of a pull, while one runs."""

    def joined(self, peer: m.DeviceId, hello: m.Hello) -> None:
        """A session is up, and this is what the peer said of itself."""
        ...

    def left(self, peer: m.DeviceId) -> None:
        """It is over."""
        ...

    def member(self, who: m.DeviceId, said: Member | None) -> None:
        """A member, neighbour or not, says something; None: it is gone."""
        ...

    def data(self, peer: m.DeviceId, size: int) -> None:
        """Bytes came."""
        ...

    def message(self, peer: m.DeviceId, message: m.Message) -> None:
        """An answer, or news, came."""
        ...


class Neighbourhood(Protocol):
    """The sessions with neighbours, as far as fetching needs them."""

    def begin(self, listening: Listening) -> None:
        """Tell somebody of all neighbours, who is there first."""
        ...

    def end(self) -> None:
        """Tell nobody any more."""
        ...

    @property
    def has_sources(self) -> bool:
        """Whether anybody is there to draw on."""
        ...

    @property
    def is_settled(self) -> bool:
        """Whether nobody else is expected to come up within moments."""
        ...

    async def settle(self) -> None:
        """Wait until nobody else is expected to come up within moments."""
        ...

    def request(
        self, peer: m.DeviceId, build: Callable[[m.RequestId], m.Request]
    ) -> int:
        """Send a request; return its id on the session, or 0 if there is no room."""
        ...

    def cancel(self, peer: m.DeviceId, request: int) -> None:
        """Withdraw a request."""
        ...

    def drop(self, peer: m.DeviceId, blame: a.Blame, *, banned: bool) -> None:
        """End a session."""
        ...

    def announce(self, news: a.AnnounceHave) -> None:
        """Tell who watches what came."""
        ...

    def announce_member(self, news: a.AnnounceMember) -> None:
        """Tell all what we do at the origin."""
        ...


class Nobody:
    """A neighbourhood without neighbours: everything comes from the origin."""

    def begin(self, listening: Listening) -> None:
        """There is nobody to tell of."""

    def end(self) -> None:
        """Nobody was told of."""

    @property
    def has_sources(self) -> bool:
        """Nobody is there."""
        return False

    @property
    def is_settled(self) -> bool:
        """Nobody will come."""
        return True

    async def settle(self) -> None:
        """Nobody is expected."""
        await trio.lowlevel.checkpoint()

    def request(
        self,
        peer: m.DeviceId,  # noqa: ARG002 - as Neighbourhood has it
        build: Callable[[m.RequestId], m.Request],  # noqa: ARG002 - as Neighbourhood has it
    ) -> int:
        """There is nobody to ask."""
        return 0

    def cancel(self, peer: m.DeviceId, request: int) -> None:
        """Nothing was asked."""

    def drop(self, peer: m.DeviceId, blame: a.Blame, *, banned: bool) -> None:
        """Nobody is there."""

    def announce(self, news: a.AnnounceHave) -> None:
        """Nobody hears it."""

    def announce_member(self, news: a.AnnounceMember) -> None:
        """Nobody hears it."""
