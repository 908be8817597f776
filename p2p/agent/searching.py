"""Hands on whom mDNS finds, and says by mDNS what is shared.

Holdings are said at the
grain of commits and refs: a device holds tens of thousands of objects, which no
multicast record could name; those are asked for in the session.
"""

from __future__ import annotations

import logging
from collections import Counter

import trio

from p2p.agent.config import Fleet
from p2p.agent.dialling import Dialling
from p2p.agent.neighbours import Neighbours
from p2p.agent.sharing import Sharing
from p2p.errors import ConfigError, LimitError
from p2p.net.advert import Advert, AdvertKey, Item, Ref
from p2p.net.discovery import Discovery
from p2p.net.neighbours import Neighbour, PeerGone
from p2p.wire import messages as m

_log = logging.getLogger(__name__)
# Who came last dials, because it is the first to hear of the other: whoever has been
# there for longer than this waits so long for the newcomer's session.
NEWCOMER_SECONDS = 2.0
YIELD_SECONDS = 1.0
# In a large site the newcomer waits until all have answered, to choose among them.
GATHER_SECONDS = 0.2
COURTESY_SECONDS = 0.3


def read_advert_key(fleet: Fleet | None) -> AdvertKey | None:
    """Return what adverts are keyed with; None for a fleet that has no secret.

    Raises:
        ConfigError: the fleet's secret cannot be read or is too short.

    """
    if fleet is None:
        return AdvertKey.open()
    if fleet.secret is None:
        return None
    try:
        with open(fleet.secret, "rb") as file:
            return AdvertKey.fleet(file.read(4096).strip())
    except OSError as error:
        raise ConfigError(fleet.secret, error.strerror or str(error)) from None


class Searching:
    """Finds neighbours while `run` runs."""

    def __init__(
        self,
        discovery: Discovery,
        dialling: Dialling,
        neighbours: Neighbours,
        sharing: Sharing,
        key: AdvertKey | None,
        *,
        port: int,
        site: str,
    ) -> None:
        """Have those that are found dialled, and say what `sharing` has.

        Without a key nothing is said but where this device is: anybody could read it.
        """
        self._discovery = discovery
        self._dialling = dialling
        self._neighbours = neighbours
        self._sharing = sharing
        self._key = key
        self._port = port
        self._site = site
        self._newcomer_until = 0.0
        self._stale = trio.Event()
        sharing.subscribe(self.say)
        neighbours.on_up = discovery.browser.confirm
        dialling.on_failure = discovery.unreachable

    def problems(self) -> list[str]:
        """Return what keeps neighbours from being found, for people."""
        failed = self._discovery.failed
        problems = [f"interface {name}: {why}" for name, why in failed.items()]
        if not self._discovery.interfaces:
            problems.append("no network interface to look for neighbours on")
        return problems

    @property
    def interfaces(self) -> list[str]:
        """The interfaces on which neighbours are looked for, by name."""
        return [interface.name for interface in self._discovery.interfaces]

    @property
    def ignored(self) -> Counter[str]:
        """How often something that was heard was ignored, by reason."""
        return Counter({str(k): n for k, n in self._discovery.browser.ignored.items()})

    def say(self) -> None:
        """Say what is shared now; soon, and only the last of several."""
        self._stale.set()

    async def _advertise(self) -> None:
        while True:
            self._stale = trio.Event()
            try:
                self._discovery.advertiser.publish(self._make_advert(), self._port)
            except LimitError as error:
                # Filters are bounded, so this is a name of a site that is too long.
                _log.warning("mDNS: %s", error)
            await self._stale.wait()

    def _make_advert(self) -> Advert:
        instance, epoch = self._neighbours.instance, self._neighbours.epoch
        if self._key is None:
            return AdvertKey.open().make(instance, epoch=epoch)
        complete: list[Item] = []
        partial: list[Item] = []
        for commit in self._sharing.commits():
            held = complete if commit.held is m.Held.COMPLETE else partial
            held.append(commit.checksum)
        complete += [Ref(ref, collection) for ref, collection in self._sharing.refs()]
        return self._key.make(
            instance,
            site=self._site,
            epoch=epoch,
            complete=complete,
            partial=partial,
        )

    def _is_of_site(self, advert: Advert) -> bool:
        """Whether a neighbour is of this site, or does not say of which."""
        if self._key is None or not self._site or advert.site is None:
            return True
        return self._key.at_site(advert, self._site)

    async def run(self) -> None:
        """Find neighbours until cancelled."""
        self._newcomer_until = trio.current_time() + NEWCOMER_SECONDS
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._advertise)
            async for event in self._discovery.browser:
                if isinstance(event, PeerGone):
                    self._dialling.lost(event.instance)
                elif self._is_of_site(event.neighbour.advert):
                    self._found(event.neighbour)

    def _found(self, found: Neighbour) -> None:
        is_newcomer = trio.current_time() < self._newcomer_until
        seconds = GATHER_SECONDS if is_newcomer else YIELD_SECONDS
        # Of two that know each other for as long, one waits for the other.
        seconds += COURTESY_SECONDS * (self._neighbours.instance > found.instance)
        self._dialling.found(found.instance, found.targets, seconds)
