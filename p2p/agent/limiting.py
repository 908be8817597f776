"""Decides which limits hold now, and has them kept: by sessions, origins and checks.

Theory of operation. What holds is computed from what the files say, the hours of now
and what was said by command (`p2p limits set`), each time anew. It is looked at when
any of these changes and, where it depends on the clock, each minute and some seconds
after the clock was set. What was said by command outlasts a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from math import inf
from typing import Any

import trio

from p2p.agent import hours
from p2p.agent.config import AgentConfig
from p2p.agent.limits import (
    SETTINGS,
    Layer,
    Limits,
    Said,
    limits_of,
    parse_setting,
    resolve,
    show_setting,
)
from p2p.agent.metered import Metered, read_metered
from p2p.agent.state import Override, StateFile
from p2p.errors import ConfigError, Error
from p2p.net.netlink import read_interfaces
from p2p.net.traffic import Traffic
from p2p.web.client.fetch import Fetcher

_log = logging.getLogger(__name__)
# A clock that was set is noticed after so many seconds.
LOOK_SECONDS = 5.0
# Network managers are asked so often what is metered.
METERED_SECONDS = 30.0
_BY_COMMAND = "p2p limits set"
_DAYS_AHEAD = 8


class Limiting:
    """The limits of one agent.

    Attributes:
        traffic: of the sessions with neighbours.
        limits: what holds now.
        metered: what is known of metered networks.

    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        state: StateFile,
        traffic: Traffic,
        fetcher: Fetcher,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Apply what holds, from now on.

        Args:
            config: what the files say.
            state: what was said by command; only its `limits` change here.
            traffic: of the sessions with neighbours.
            fetcher: of origins.
            now: the time in seconds since 1970.

        """
        self._config = config
        self._state = state
        self.traffic = traffic
        self._fetcher = fetcher
        self._now = now
        self._share: float | None = None
        self._hearing: list[Callable[[], None]] = []
        self._changed = trio.Event()
        self.metered = Metered()
        self._said: dict[str, Said] = {}
        self.limits = Limits()
        self._apply()

    def subscribe(self, hear: Callable[[], None]) -> None:
        """Have `hear` called after each change of what holds."""
        self._hearing.append(hear)

    @property
    def origin_rate(self) -> float | None:
        """How many bytes a second may come from origins now; None: any."""
        rates = (self.limits.origin, self.limits.site_origin, self._share)
        return min((rate for rate in rates if rate is not None), default=None)

    @property
    def uplink(self) -> str:
        """Why nothing is fetched from origins now; "" if it is."""
        return "" if self.limits.metered else self.metered.uplink

    # -- changing ----------------------------------------------------------------

    def configure(self, config: AgentConfig) -> None:
        """Go by another configuration from now on."""
        self._config = config
        self._change()

    def share_origin(self, rate: float | None) -> None:
        """Take no more than this part of what the site may take from origins."""
        self._share = rate
        self._fetcher.limit(self.origin_rate, self.limits.dscp)

    async def set(self, texts: Mapping[str, str], until: float | None) -> None:
        """Have settings hold whatever files say, until a time or further notice.

        Raises:
            ConfigError: one of them is none, or the time has passed.

        """
        for name, text in texts.items():
            parse_setting(name, text, "")
        if until is not None and until <= self._now():
            raise ConfigError("until", "that time has passed by this device's clock")
        for name, text in texts.items():
            self._state.state.limits[name] = Override(text, until)
        self._change()
        await self._save()

    async def reset(self, names: Iterable[str]) -> None:
        """Forget what was set by command: these settings, or all if none is named."""
        names = list(names) or list(SETTINGS)
        for name in names:
            if name not in SETTINGS:
                raise ConfigError(name, "is not a setting of this program")
            self._state.state.limits.pop(name, None)
        self._change()
        await self._save()

    async def _save(self) -> None:
        await trio.to_thread.run_sync(self._state.save)

    def _change(self) -> None:
        self._apply()
        self._changed.set()
        self._changed = trio.Event()

    # -- what holds --------------------------------------------------------------

    def _at(self, when: float) -> dict[str, Said]:
        """Return what holds at a time."""
        time.tzset()  # the device may have been moved to another zone
        local = time.localtime(when)
        minute = local.tm_hour * 60 + local.tm_min
        layers = self._config.limits.layers()
        layers += hours.layers_at(self._config.hours, local.tm_wday, minute)
        return resolve(layers + self._overrides(when))

    def _overrides(self, when: float) -> list[Layer]:
        layers = []
        for name, override in self._state.state.limits.items():
            if override.is_over(when):
                continue
            try:
                value = parse_setting(name, override.text, "")
            except ConfigError as error:
                # Another version remembered it, before the system was rolled back.
                _log.warning("what was set by command is ignored: %s", error)
                continue
            layers.append(Layer(_BY_COMMAND, {name: value}))
        return layers

    def _apply(self) -> None:
        said = self._at(self._now())
        limits = limits_of(said)
        if said != self._said:
            for name, each in said.items():
                if self._said and each != self._said[name]:
                    text = show_setting(name, each.value)
                    _log.info("limit %s is %s: %s", name, text, each.source)
        self._said, self.limits = said, limits
        self.traffic.change(
            upload=limits.upload, download=limits.download, dscp=limits.dscp
        )
        self._fetcher.limit(self.origin_rate, limits.dscp)
        for hear in self._hearing:
            hear()

    async def run(self) -> None:
        """Keep to what holds as time passes, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_clock)
            nursery.start_soon(self._watch_networks)

    async def _watch_clock(self) -> None:
        while True:
            changed = self._changed
            now = self._now()
            if self._at(now) != self._said:
                self._apply()
            if self._expire(now):
                await self._save()
            with trio.move_on_after(self._seconds_to_look(now)):
                await changed.wait()

    def _expire(self, now: float) -> bool:
        """Forget what was set until a time that has passed; tell if there was any."""
        overrides = self._state.state.limits
        over = [
            n for n, o in overrides.items() if o.until is not None and o.until <= now
        ]
        for name in over:
            del overrides[name]
        return bool(over)

    def _seconds_to_look(self, now: float) -> float:
        ends = [o.until for o in self._state.state.limits.values() if o.until]
        if not (ends or self._config.hours):
            return inf
        soonest = min([LOOK_SECONDS, 60 - now % 60, *(end - now for end in ends)])
        return max(soonest, 0.0) + 0.01

    async def _watch_networks(self) -> None:
        while True:
            changed = self._changed
            await self.look_at_networks()
            with trio.move_on_after(METERED_SECONDS):
                await changed.wait()

    async def look_at_networks(self) -> None:
        """Find out anew which networks are metered, and keep off those."""
        try:
            interfaces = await trio.to_thread.run_sync(read_interfaces)
        except Error as error:
            _log.warning("not known what is metered: %s", error)
            return
        names = [interface.name for interface in interfaces]
        patterns = self._config.limits.metered_interfaces
        before, self.metered = self.metered, await read_metered(names, patterns)
        avoided = () if self.limits.metered else self.metered.interfaces
        self.traffic.avoid(
            str(network.ip)
            for interface in interfaces
            if interface.name in avoided
            for network in interface.networks
        )
        if self.metered != before:
            for hear in self._hearing:
                hear()

    # -- for people --------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return what holds, who said so and until when, as JSON values."""
        now = self._now()
        if self._at(now) != self._said:
            self._apply()
        overrides = self._state.state.limits
        settings = []
        for name, each in self._said.items():
            override = overrides.get(name) if each.source == _BY_COMMAND else None
            settings.append(
                {
                    "name": name,
                    "value": each.value,
                    "text": show_setting(name, each.value),
                    "source": each.source,
                    "until": override.until if override else self._until(name, now),
                }
            )
        return {
            "settings": settings,
            "site_share": self._share,
            "metered": asdict(self.metered),
        }

    def _until(self, name: str, now: float) -> float | None:
        """Return when another window's value holds for a setting; None: never."""
        if not any(name in window.values for window in self._config.hours):
            return None
        edges = {e % 1440 for w in self._config.hours for e in (w.begin, w.end)}
        first = int(now // 60) + 1
        for minute in range(first, first + _DAYS_AHEAD * 1440):
            local = time.localtime(minute * 60)
            is_edge = local.tm_hour * 60 + local.tm_min in edges
            if is_edge and self._at(minute * 60)[name] != self._said[name]:
                return minute * 60.0
        return None
