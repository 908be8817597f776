"""What goes wrong in a trial, and when: each waits for its moment and acts once."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.site import Site
from tests.lab.trial import Trial

Fault = Callable[[Trial], bool]
"""Called often; does what it does once its time has come, and returns True then."""


def count_uplink(trial: Trial) -> bool:
    """Have the gateway count what comes through the uplink for each device."""
    site, devices = trial.site, trial.devices
    rules = [f"counter {device.host.name} {{}}" for device in devices]
    rules += ["chain forward { type filter hook forward priority 0;"]
    for device in devices:
        name, address = device.host.name, device.host.address
        rules.append(f"ip daddr {address} counter name {name}")
    text = "\n".join(["table ip uplink {", *rules, "}", "}"])
    site.gateway.run("nft", text)
    return True


def uplink_by_device(site: Site) -> dict[str, int]:
    """Return how much came through the uplink for each device."""
    listing = json.loads(site.gateway.run("nft", "-j", "list", "counters"))
    counters = [entry["counter"] for entry in listing["nftables"] if "counter" in entry]
    return {counter["name"]: int(counter["bytes"]) for counter in counters}


@dataclass
class KillBusiest:
    """Kill whoever fetched most from the origin, when this share of a copy has come.

    Attributes:
        victim: who that was.

    """

    share: float
    victim: str = ""

    def __call__(self, trial: Trial) -> bool:
        if trial.uplink_bytes() < self.share * trial.copy:
            return False
        fetched = uplink_by_device(trial.site)
        self.victim = max(fetched, key=lambda name: fetched[name])
        next(d for d in trial.devices if d.host.name == self.victim).kill()
        return True


@dataclass
class Unplug:
    """Pull the cable of the last device at a time; nobody is told, nor waits for it."""

    seconds: float

    def __call__(self, trial: Trial) -> bool:
        if trial.now() < self.seconds:
            return False
        host = trial.devices[-1].host
        host.unplug()
        trial.lost.add(host.name)
        return True


@dataclass
class Cut:
    """Cut the LAN in halves when this share of a copy came over the WAN, and heal it.

    Each half still reaches the gateway.

    Attributes:
        heal: after how much more of a copy it is whole again; None for never.

    """

    share: float
    heal: float | None = None
    _is_cut: bool = False

    def __call__(self, trial: Trial) -> bool:
        came = trial.uplink_bytes() / trial.copy
        if not self._is_cut and came >= self.share:
            self._is_cut = True
            self._cut(trial)
            return self.heal is None
        if self._is_cut and self.heal is not None and came >= self.share + self.heal:
            trial.site.lab.switch("nft", "delete", "table", "bridge", "halves")
            return True
        return False

    def _cut(self, trial: Trial) -> None:
        half = len(trial.devices) // 2
        ports = [device.host.name for device in trial.devices]
        one, other = ", ".join(ports[:half]), ", ".join(ports[half:])
        rules = [
            "table bridge halves { chain forward {",
            "type filter hook forward priority 0;",
            f"iifname {{ {one} }} oifname {{ {other} }} drop;",
            f"iifname {{ {other} }} oifname {{ {one} }} drop;",
            "}",
            "}",
        ]
        trial.site.lab.switch("nft", "\n".join(rules))
