"""A site of real agents that update at the same moment, and what it comes to.

The agents run and have met before any of them wants anything; then all are told to
follow the branch at once. Bytes are counted by the kernel at the links. The
repositories are on tmpfs: a disk that many devices share would be what is measured.
"""

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.goodput import measure_goodput
from tests.lab.meters import (
    Link,
    Segments,
    cpu_seconds,
    machine_busy_seconds,
    peak_memory,
    read_link,
    read_segments,
)
from tests.lab.namespaces import room_for_neighbours
from tests.lab.site import Device, Site, open_site, until
from tests.pulls import REF, REMOTE
from tests.trees import MIB

_LOOK_SECONDS = 0.005
# Sessions that an agent keeps in a large site, less some that are still being dialled.
_ENOUGH_PEERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a trial is about.

    Attributes:
        devices: that lack everything.
        holders: that have everything.
        link: rate of each device's link, both ways, as `tc` reads it.
        wan: rate of the uplink; None for a site without an origin.
        compress: whether content travels as zstd frames between devices.
        bad: how somebody behaves who says that it has everything, see `bad_holder`.
        seconds: after which whoever has not finished has not.

    """

    devices: int = 8
    holders: int = 1
    link: str = "80mbit"
    wan: str | None = None
    compress: bool = True
    bad: str | None = None
    seconds: float = 900.0


@dataclass(slots=True, kw_only=True)
class Figures:
    """What a trial came to; bytes are those of links, headers included.

    Attributes:
        content: bytes of the commit's objects in canonical form.
        copy: bytes that one stock `ostree pull` gets of it.
        goodput: bytes/s of content that the narrowest link carries.
        bound: seconds that the best schedule needs at this goodput; where a stock
            pull gets fewer bytes than the content has, for those.
        seconds: until the last device had published the commit.
        first, median: the same for the first device, and half of them.
        holder_copies: what the holders sent, in copies.
        wan_copies: what came through the uplink, in copies.
        resent: share of those segments of TCP that were sent again, as they were lost.
        tail: seconds from the last byte of the uplink to the last device's end.
        excess: what devices received beyond one content each, as a share of that.
        unfinished: devices that still run and did not finish.
        cpu: processors' time of all agents, as a share of the machine's.
        busy: the same of everything that ran on the machine.
        memory: the largest agent's peak of resident memory.

    """

    content: int = 0
    copy: int = 0
    goodput: float = 0.0
    bound: float = 0.0
    seconds: float = 0.0
    first: float = 0.0
    median: float = 0.0
    holder_copies: float = 0.0
    wan_copies: float = 0.0
    resent: float = 0.0
    tail: float = 0.0
    excess: float = 0.0
    unfinished: int = 0
    cpu: float = 0.0
    busy: float = 0.0
    memory: int = 0

    @property
    def ratio(self) -> float:
        """The last device's time against the bound."""
        return self.seconds / self.bound

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


@dataclass
class Trial:
    """A site that is ready to begin.

    Attributes:
        lost: devices that nobody waits for.
        at: what else is to happen, and when: tried again and again until it is true.

    """

    plan: Plan
    site: Site
    commit: str
    content: int
    copy: int = 0
    holders: list[Device] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    others: list[Device] = field(default_factory=list)
    ended: dict[str, float] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    began: float = 0.0
    uplink_before: int = 0
    last_byte: float = 0.0
    at: list[Callable[["Trial"], bool]] = field(default_factory=list)

    def uplink_bytes(self) -> int:
        """What came through the uplink since the beginning."""
        return read_link(self.site.treehub.pid).sent - self.uplink_before

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    # -- before ----------------------------------------------------------------------

    def meet(self) -> None:
        """Start all agents, and wait until they have met."""
        agents = [*self.holders, *self.devices]
        for holder in self.holders:
            holder.start_idle_agent(
                follow=f"{REMOTE}:{REF}", compress=self.plan.compress
            )
        for other in self.others:
            other.start_bent(str(self.plan.bad), follow=f"{REMOTE}:{REF}")
        for device in self.devices:
            device.start_idle_agent(compress=self.plan.compress)
        for device in agents:
            device.until_ready()
        enough = min(len(agents) - 1, _ENOUGH_PEERS)
        until(
            lambda: all(len(device.peers()) >= enough for device in agents),
            lambda: [(d.host.name, len(d.peers()), d.log[-500:]) for d in agents],
        )
        until(lambda: all(self._sees_holder(device) for device in self.devices))
        # Until then nothing is checked, however many are met.
        until(lambda: not any(device.status()["settling"] for device in agents))

    def _sees_holder(self, device: Device) -> bool:
        if not self.holders or len(self.devices) > _ENOUGH_PEERS:
            return True  # of many, not each meets the holder
        return any(
            commit["commit"] == self.commit
            for peer in device.peers().values()
            for commit in peer["commits"]
        )

    # -- the run ---------------------------------------------------------------------

    def run(self) -> Figures:
        """Let all devices update at once, until the last one has."""
        agents = [*self.holders, *self.devices]
        pids = {device.host.name: device.pid for device in agents}
        links = {name: read_link(pid) for name, pid in pids.items()}
        cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
        busy = machine_busy_seconds()
        self.uplink_before = read_link(self.site.treehub.pid).sent
        given = self._given()
        self.began = time.monotonic()
        self._release()
        self._wait()
        seconds = max(self.ended.values(), default=self.plan.seconds)
        cores = 2 * max(self.now(), 1e-9)
        figures = Figures(content=self.content, seconds=seconds)
        figures.busy = (machine_busy_seconds() - busy) / cores
        alive = [device for device in agents if device.is_running]
        left = {device.host.name for device in self.devices if device in alive}
        figures.unfinished = len(left - self.lost - self.ended.keys())
        spent = sum(cpu_seconds(d.pid) - cpu[d.host.name] for d in alive)
        figures.cpu = spent / cores
        figures.memory = max(peak_memory(device.pid) for device in alive)
        moved = {d.host.name: read_link(d.pid) - links[d.host.name] for d in alive}
        self._count(figures, moved)
        self._count_given(figures, given)
        return figures

    def _given(self) -> list[tuple[int, Segments]]:
        """Return what the origin, and then each holder sent so far."""
        givers = [(self.site.origin, self.site.treehub.pid)]
        givers += [(holder.host, holder.pid) for holder in self.holders]
        return [(host.wire_bytes(), read_segments(pid)) for host, pid in givers]

    def _count_given(
        self, figures: Figures, before: list[tuple[int, Segments]]
    ) -> None:
        pairs = list(zip(self._given(), before, strict=True))
        wan, *holders = [now - then for (now, _), (then, _) in pairs]
        figures.wan_copies, figures.holder_copies = float(wan), float(sum(holders))
        segments = [now - then for (_, now), (_, then) in pairs]
        sent = sum(each.sent for each in segments)
        figures.resent = sum(each.resent for each in segments) / max(sent, 1)

    def _release(self) -> None:
        body = {"refspec": f"{REMOTE}:{REF}"}
        threads = [
            threading.Thread(target=device.command, args=("/follow", body))
            for device in self.devices
        ]
        for thread in threads:
            thread.start()

    def _wait(self) -> None:
        seen = 0
        waiting = {device.host.name: device for device in self.devices}
        while waiting and self.now() < self.plan.seconds:
            for name, device in list(waiting.items()):
                if device.has_published(self.commit):
                    self.ended[name] = self.now()
                    del waiting[name]
                elif name in self.lost or not device.is_running:
                    del waiting[name]
            count = self.uplink_bytes()
            # Polls and keep-alives are no content.
            if count > seen + 2000:
                seen, self.last_byte = count, self.now()
            self.at = [do for do in self.at if not do(self)]
            time.sleep(_LOOK_SECONDS)

    def _count(self, figures: Figures, moved: dict[str, Link]) -> None:
        times = sorted(self.ended.values())
        figures.first = times[0] if times else 0.0
        figures.median = statistics.median(times) if times else 0.0
        figures.tail = figures.seconds - self.last_byte
        ended = [name for name in self.ended if name in moved]
        received = sum(moved[name].received for name in ended)
        wanted = max(len(ended) * self.content, 1)
        figures.excess = received / wanted - 1


def fluid_bound(plan: Plan, content: int, goodput: float) -> float:
    """Return the least seconds for all links being equal (Kumar and Ross 2006)."""
    takers, holders = plan.devices, plan.holders
    shared = takers * content / (goodput * (takers + holders))
    return max(content / goodput, shared)


@contextmanager
def open_trial(plan: Plan, work: Path, tree: Path) -> Iterator[tuple[Trial, Figures]]:
    """Make a site and its devices; yield it with what was measured beforehand."""
    uplink = plan.wan or "1000mbit"
    hosts = plan.devices + plan.holders + 3
    with (
        room_for_neighbours(hosts),
        open_site(work, uplink=uplink, lan=plan.link) as site,
    ):
        commit = site.publisher.commit(tree)
        before = Figures()
        before.copy = site.pull_by_stock(REF)
        content = site.publisher.content_bytes(commit)
        if plan.holders:
            one, other = site.lab.host("one"), site.lab.host("other")
            before.goodput = measure_goodput(one, other)
            least = min(content, before.copy) if plan.compress else content
            before.bound = fluid_bound(plan, least, before.goodput)
        else:
            before.goodput = measure_goodput(site.origin, site.gateway)
            before.bound = before.copy / before.goodput
        if plan.wan is None:
            # An origin that nobody answers for: what is to be had is the holders'.
            site.url = f"http://{site.gateway.address}:9"
        trial = Trial(plan, site, commit, content, before.copy)
        trial.holders = [site.holder(f"h{k}") for k in range(plan.holders)]
        trial.devices = site.devices(plan.devices)
        if plan.bad is not None:
            trial.others = [site.holder("bad")]
        yield trial, before


def run_trial(
    plan: Plan,
    work: Path,
    tree: Path,
    *,
    at: Sequence[Callable[[Trial], bool]] = (),
) -> Figures:
    """Run a trial from its beginning to its end."""
    with open_trial(plan, work, tree) as (trial, before):
        trial.meet()
        trial.at = list(at)
        figures = trial.run()
        figures.copy, figures.goodput = before.copy, before.goodput
        figures.bound = before.bound
        figures.holder_copies /= before.copy
        figures.wan_copies /= before.copy
        if plan.wan is None:
            figures.wan_copies = figures.tail = 0.0
        if plan.holders:
            figures.tail = 0.0
        for device in trial.devices:
            if device.host.name in trial.ended:
                device.check(trial.commit)
        return figures


def show(figures: Figures) -> str:
    """Return a trial's figures for people."""
    f = figures
    times = f"first {f.first:.2f}, median {f.median:.2f}"
    sizes = f"content {f.content:,} bytes, one stock pull {f.copy:,}"
    over = f"{f.wan_copies:.3f} over the WAN, tail {f.tail:.2f} s"
    against = f"{f.ratio:.3f} x the bound of {f.bound:.2f} s"
    lines = [
        f"last device   {f.seconds:.2f} s, {against} ({times})",
        f"goodput       {f.goodput * 8 / 1e6:.2f} Mbit/s; {sizes}",
        f"copies        {f.holder_copies:.3f} from the holders, {over}",
        f"lost          {f.resent:.2%} of what they sent, and sent again by TCP",
        f"received      {f.excess:+.2%} beyond the content, headers included",
        f"processor     {f.cpu:.0%} for agents, {f.busy:.0%} in all",
        f"memory        {f.memory / MIB:.0f} MiB at most",
    ]
    if f.unfinished:
        lines.append(f"UNFINISHED    {f.unfinished} devices")
    return "\n".join(lines)


def to_json(figures: Figures) -> str:
    """Return a trial's figures for machines."""
    return json.dumps(figures.as_json())
