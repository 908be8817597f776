"""What a simulated run came to, in the figures that the lab prints too."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from p2p.sim.link import GOODPUT
from p2p.sim.scenario import Rehearsal


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of a run.

    Attributes:
        bytes, objects: of the commit.
        bound: seconds a fluid would need.
        first, median, last: seconds from the start of the run to when so many devices
            had everything; None if none had.
        ratio: `last` over `bound`.
        unfinished: devices that live and did not get everything.
        holder_copies: what left the holders, in copies of the commit.
        wan_copies: what the origin sent, in copies of the commit.
        after_wan: seconds from the last byte over the WAN to `last`.
        duplicates: content that devices had already, as a share of all they received.
        control: bytes on the links that are no content, with all their headers.
        control_share: of all bytes on the links of the LAN.
        banned: how many neighbours were sent away for good, over all devices.

    """

    devices: int
    holders: int
    seed: int
    bytes: int
    objects: int
    bound: float
    first: float | None
    median: float | None
    last: float | None
    ratio: float | None
    unfinished: int
    holder_copies: float | None
    wan_copies: float | None
    after_wan: float | None
    duplicates: float
    control: int
    control_share: float
    banned: int


def make_report(rehearsal: Rehearsal) -> Report:
    """Return the figures of a run that is over."""
    scenario, site = rehearsal.scenario, rehearsal.site
    figures = site.figures()
    size = scenario.tree.bytes
    hosts = [site.network.hosts[id_] for id_ in site.devices]
    content = sum(host.content for host in hosts)
    received = sum(host.received for host in hosts)
    done = sorted(figures.finished)
    last = done[-1] if done else None
    origin = site.network.hosts[site.origin.id] if site.origin is not None else None
    given = 0
    for number in range(scenario.holders):
        holder = rehearsal.device(f"holder-{number + 1}")
        given += site.network.hosts[holder.id].content
    return Report(
        devices=scenario.devices,
        holders=scenario.holders,
        seed=scenario.seed,
        bytes=size,
        objects=len(scenario.tree.sizes),
        bound=scenario.bound,
        first=done[0] if done else None,
        median=median(done) if done else None,
        last=last,
        ratio=last / scenario.bound if last is not None else None,
        unfinished=figures.unfinished,
        holder_copies=given / size if scenario.holders else None,
        wan_copies=origin.content / size if origin is not None else None,
        after_wan=last - origin.gave if origin is not None and last else None,
        duplicates=figures.duplicate / received if received else 0.0,
        control=figures.control,
        control_share=figures.control / (content / GOODPUT + figures.control or 1),
        banned=sum(len(device.banned) for device in site.devices.values()),
    )
