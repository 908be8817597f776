"""How a simulated run went on: samples for a plot, and a line for every action."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from functools import partial
from typing import TextIO

from p2p.ostree.objects import ObjectName
from p2p.sim.device import Device
from p2p.sim.link import GOODPUT
from p2p.sim.scenario import Rehearsal
from p2p.swarm.action import Action
from p2p.wire.messages import DeviceId

# Samples in the time of the bound.
_SAMPLES = 100
_SHOWN = 12


@dataclass(slots=True)
class History:
    """What was seen at regular times.

    Attributes:
        times: when.
        progress: for each device that wanted the commit, the share it had.
        uplinks: how busy the uplinks of all devices were since the time before.
        holders: the same of those that had the commit from the start.
        wan: copies the origin had sent.

    """

    times: list[float] = field(default_factory=list)
    progress: dict[DeviceId, list[float]] = field(default_factory=dict)
    uplinks: list[float] = field(default_factory=list)
    holders: list[float] = field(default_factory=list)
    wan: list[float] = field(default_factory=list)


class Recorder:
    """Samples a site while it runs."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        """Begin to sample when the site runs."""
        self.history = History()
        self._site = rehearsal.site
        self._size = rehearsal.scenario.tree.bytes
        self._step = rehearsal.scenario.bound / _SAMPLES
        names = rehearsal.names
        self._holders = [id_ for id_ in names if names[id_].startswith("holder")]
        self._sent: dict[DeviceId, float] = {}
        self._site.timeline.at(0.0, self._sample)

    def _sample(self) -> None:
        self.record()
        self._site.timeline.after(self._step, self._sample)

    def record(self) -> None:
        """Take a sample now."""
        history, hosts = self.history, self._site.network.hosts
        history.times.append(self._site.timeline.now)
        for device in self._site.devices.values():
            if device.is_wanting or device.id in history.progress:
                shares = history.progress.setdefault(
                    device.id, [0.0] * (len(history.times) - 1)
                )
                shares.append(self._share(device))
        use = {id_: self._use(id_) for id_ in self._site.devices}
        history.uplinks.append(_mean(list(use.values())))
        history.holders.append(_mean([use[id_] for id_ in self._holders]))
        origin = self._site.origin
        sent = hosts[origin.id].content if origin is not None else 0
        history.wan.append(sent / self._size)

    def _share(self, device: Device) -> float:
        if device.finished is not None:
            return 1.0
        tally = device.scheduler.tally
        had = tally.neighbours + tally.origin - tally.duplicate - tally.rejected
        return min(had / self._size, 1.0)

    def _use(self, device: DeviceId) -> float:
        host = self._site.network.hosts[device]
        sent = host.content / GOODPUT + host.control
        fresh = sent - self._sent.get(device, 0.0)
        self._sent[device] = sent
        times = self.history.times
        seconds = times[-1] - times[-2] if len(times) > 1 else 0.0
        return min(fresh / (host.up * seconds), 1.0) if seconds else 0.0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class Trace:
    """Writes every action of every device: time, who, what."""

    def __init__(self, file: TextIO, rehearsal: Rehearsal) -> None:
        """Write to a file what happens from now on."""
        self._file = file
        self._names = rehearsal.names
        for device in rehearsal.site.devices.values():
            device.trace = partial(self._write, self._names[device.id])

    def _write(self, name: str, now: float, action: Action) -> None:
        words = [f"{now:.6f}", name, type(action).__name__]
        words += [
            f"{f.name}={self._text(getattr(action, f.name))}" for f in fields(action)
        ]
        self._file.write(" ".join(words) + "\n")

    def _text(self, value: object) -> str:
        if isinstance(value, ObjectName):
            return f"{value.checksum[:_SHOWN]}.{value.type.extension}"
        if isinstance(value, Enum):
            return value.name.lower()
        if isinstance(value, tuple):
            return f"({','.join(map(self._text, value))})"
        if isinstance(value, str):
            return self._names.get(DeviceId(value), value[:_SHOWN])
        return str(value)
