"""Joins what mDNS finds to sessions, and says by mDNS what is shared.

Who is found is dialled until a session is up or it is gone. Holdings are said at the
grain of commits and refs: a device holds tens of thousands of objects, which no
multicast record could name; those are asked for in the session.
"""

from __future__ import annotations

import logging
from collections import Counter

import trio

from p2p.agent.config import Fleet
from p2p.agent.neighbours import MAX_RETRY_SECONDS, RETRY_SECONDS, Neighbours
from p2p.agent.sharing import Sharing
from p2p.errors import ConfigError, LimitError
from p2p.net.advert import Advert, AdvertKey, InstanceId, Item, Ref
from p2p.net.discovery import Discovery
from p2p.net.neighbours import PeerGone
from p2p.net.target import Target
from p2p.wire import messages as m

_log = logging.getLogger(__name__)
# Sessions this device opens by itself; others may dial it beyond that.
MAX_DIALLED = 16
# Of two that find each other one waits so long for the other's session.
YIELD_SECONDS = 1.0


def read_advert_key(fleet: Fleet | None) -> AdvertKey:
    """Return what adverts are keyed with.

    Raises:
        ConfigError: the fleet's secret cannot be read or is too short.

    """
    if fleet is None or fleet.secret is None:
        return AdvertKey.open()
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
        neighbours: Neighbours,
        sharing: Sharing,
        key: AdvertKey,
        *,
        port: int,
        site: str,
    ) -> None:
        """Dial for `neighbours`, and say what `sharing` has."""
        self._discovery = discovery
        self._neighbours = neighbours
        self._sharing = sharing
        self._key = key
        self._port = port
        self._site = site
        self._dialling: set[InstanceId] = set()
        self._targets: dict[InstanceId, tuple[Target, ...]] = {}
        self._slots = trio.Semaphore(MAX_DIALLED)
        sharing.subscribe(self.say)
        neighbours.on_up = self._came_up

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
        complete: list[Item] = []
        partial: list[Item] = []
        for commit in self._sharing.commits():
            held = complete if commit.held is m.Held.COMPLETE else partial
            held.append(commit.checksum)
        complete += [Ref(r.ref, r.collection) for r in self._sharing.message().refs]
        advert = self._key.make(
            self._neighbours.instance,
            site=self._site,
            epoch=self._neighbours.epoch,
            complete=complete,
            partial=partial,
        )
        try:
            self._discovery.advertiser.publish(advert, self._port)
        except LimitError as error:
            # Filters are bounded, so this is a name of a site that is too long.
            _log.warning("mDNS: %s", error)

    def _is_of_site(self, advert: Advert) -> bool:
        """Whether a neighbour is of this site, or does not say of which."""
        if not self._site or advert.site is None:
            return True
        return self._key.at_site(advert, self._site)

    async def run(self) -> None:
        """Find and dial neighbours until cancelled."""
        self.say()
        async with trio.open_nursery() as nursery:
            async for event in self._discovery.browser:
                if isinstance(event, PeerGone):
                    # A session that is up goes on; it is not dialled again.
                    self._targets.pop(event.instance, None)
                    continue
                found = event.neighbour
                if not self._is_of_site(found.advert):
                    continue
                self._targets[found.instance] = found.targets
                if found.instance not in self._dialling:
                    self._dialling.add(found.instance)
                    nursery.start_soon(self._keep_dialling, found.instance)

    async def _keep_dialling(self, instance: InstanceId) -> None:
        """Keep a session with a neighbour for as long as it is heard of."""
        try:
            if instance < self._neighbours.instance:
                # Both see each other at once; so only one dials, if it can.
                await trio.sleep(YIELD_SECONDS)
            async with self._slots:
                pause = RETRY_SECONDS
                while instance in self._targets:
                    if self._neighbours.meets(instance):
                        pause = RETRY_SECONDS
                        await self._neighbours.until_gone(instance)
                    elif await self._neighbours.dial(self._targets[instance]):
                        pause = RETRY_SECONDS
                    else:
                        await self._discovery.unreachable(instance)
                    await trio.sleep(pause)
                    pause = min(pause * 2, MAX_RETRY_SECONDS)
        finally:
            self._dialling.discard(instance)

    def _came_up(self, instance: InstanceId) -> None:
        self._discovery.browser.confirm(instance)
