"""Who takes part in a pull besides the origin: neighbours to draw on and share with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from p2p.agent.fetching import Fetching
from p2p.agent.limits import Limits as Allowed
from p2p.agent.neighbourhood import Neighbourhood, Nobody
from p2p.agent.scratch import Scratch
from p2p.agent.sharing import SharedCommit, Sharing, load_complete
from p2p.agent.survey import Survey
from p2p.agent.writing import Writer
from p2p.net.traffic import Traffic
from p2p.ostree.messages import Form
from p2p.ostree.objects import Checksum, ObjectName
from p2p.swarm import event as e
from p2p.swarm.action import Action, AnnounceHave
from p2p.swarm.scheduler import Scheduler
from p2p.swarm.tuning import Limits, Tuning
from p2p.web.client.origin import Origin
from p2p.wire.bitmap import sort_closure
from p2p.wire.limits import UNIT_BYTES
from p2p.wire.messages import DeviceId, Held

NUMBER_AFTER_SECONDS = 0.3
_ALONE = DeviceId("0" * 64)


class Rules(Protocol):
    """What an operator allows of origins; may change at any time."""

    @property
    def limits(self) -> Allowed:
        """What is limited how."""
        ...

    def share_origin(self, rate: float | None) -> None:
        """Take no more than this part of what the site may take from origins."""
        ...


@dataclass(frozen=True, slots=True)
class Company:
    """The neighbours, and what this device shares with them while it pulls.

    Attributes:
        me: this device.
        neighbours: the sessions.
        sharing: what they may have; None if nothing.
        scratch: where units of large objects wait. Not used without neighbours.
        traffic: how fast neighbours are read.
        rules: what an operator allows; None is everything.

    """

    me: DeviceId
    neighbours: Neighbourhood
    sharing: Sharing | None
    scratch: Scratch
    traffic: Traffic = field(default_factory=Traffic)
    rules: Rules | None = None

    @classmethod
    def nobody(cls) -> Company:
        """Return the company of a device that pulls alone."""
        return cls(_ALONE, Nobody(), None, Scratch(""))

    @contextmanager
    def fetching(
        self,
        *,
        survey: Survey,
        writer: Writer,
        origin: Origin | None,
        form: Form,
        progressed: Callable[[], None],
    ) -> Iterator[Fetching]:
        """Yield what fetches the objects of one survey.

        Args:
            survey: what is missing.
            writer: where it goes.
            origin: what to fall back to, if anything.
            form: in which form the origin's objects are kept.
            progressed: called when something was staged.

        """

        def verified(names: Iterable[ObjectName]) -> None:
            if self.sharing is not None:
                self.sharing.add_objects(names)
            progressed()

        def accepting(action: Action) -> None:
            if self.sharing is not None:
                self.sharing.giving.note(action)

        async def named(commit: Checksum) -> list[ObjectName]:
            if isinstance(self.neighbours, Nobody):
                return []
            # Small updates are over before a map of them is of use to anybody.
            await trio.sleep(NUMBER_AFTER_SECONDS)
            whole = await _number(survey, commit)
            if self.sharing is not None:
                self.sharing.number(whole, survey.not_here())
            return whole.closure

        # Who is alone by choice has nobody to listen for before it fetches.
        is_alone = isinstance(self.neighbours, Nobody)
        scheduler = Scheduler(
            self.me,
            rng=random.Random(),  # noqa: S311 - spreads load, guards nothing
            tuning=Tuning(hush=0.0) if is_alone else None,
            limits=self._limits(),
        )
        fetching = Fetching(
            scheduler=scheduler,
            survey=survey,
            writer=writer,
            origin=origin,
            neighbours=self.neighbours,
            scratch=self.scratch,
            form=form,
            verified=verified,
            named=named,
            share_origin=self._share_origin,
            accepting=accepting,
        )

        def limits_changed() -> None:
            fetching.tell(e.LimitsChanged(self._limits()))

        self.neighbours.begin(fetching)
        try:
            with self.traffic.telling(limits_changed):
                yield fetching
        finally:
            self._share_origin(None)
            self.neighbours.end()
            dropped = self.scratch.clear()
            self.neighbours.announce(AnnounceHave((), dropped))

    def _limits(self) -> Limits:
        """Return what the scheduler may ask for."""
        limits = Limits(
            download_rate=self.traffic.download.rate,
            origin_rate=None if self.rules is None else self.rules.limits.site_origin,
        )
        if limits.download_rate is None:
            return limits
        # One unit on its way while the next one is asked for, or what a second brings.
        ahead = max(2 * UNIT_BYTES, int(limits.download_rate))
        return replace(limits, request_bytes=min(limits.request_bytes, ahead))

    def _share_origin(self, rate: float | None) -> None:
        if self.rules is not None:
            self.rules.share_origin(rate)

    def begin(self, commit: Checksum) -> None:
        """Share what comes of a commit while it is pulled."""
        if self.sharing is not None:
            self.sharing.begin(commit)

    async def share(self, heads: Iterable[tuple[str, str, Checksum]]) -> None:
        """Share complete commits: (ref, collection or empty, commit)."""
        if self.sharing is None:
            return
        for ref, collection, commit in heads:
            await self.share_commit(commit)
            self.sharing.add_ref(ref, collection, commit)

    async def share_commit(self, commit: Checksum) -> None:
        """Share a complete commit that no ref names any more."""
        if self.sharing is not None and not self.sharing.complete(commit):
            load = self.sharing.load_complete
            self.sharing.add(await trio.to_thread.run_sync(load, commit))


async def _number(survey: Survey, commit: Checksum) -> SharedCommit:
    """Return a commit all of whose directories are here, its objects in order."""
    if survey.closure.is_of_one:
        closure = sort_closure(survey.closure.named)
        return SharedCommit(commit, Held.COMPLETE, closure)
    # Something was passed over, or belongs to another commit: look at the disk.
    return await trio.to_thread.run_sync(load_complete, survey.holdings, commit)
