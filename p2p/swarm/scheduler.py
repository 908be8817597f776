"""Decides what to ask of whom, for one device that wants the objects of some commits.

Theory of operation. The scheduler is told what happened (`handle`), asked what to do
(`actions`), and says when it wants to be asked again though nothing happened
(`next_timeout`). It has no clock, no sockets and no randomness of its own: the same
events at the same times with an equally seeded `Random` give the same actions. While
an event is applied, its handler is the only one that touches the state.

Every wanted object has one of the states in `lifecycle`. Three parts move them on:

1. `demand` asks neighbours, whoever has something we lack and has room in its window:
   metadata first, then what the fewest neighbours have. Large objects are asked for
   unit by unit, of several neighbours at once (`large`).
2. `lane` asks the origin for what no neighbour has. Each object has one owner among
   the members of the site (`ownership`), so that it crosses the WAN about once. Others
   wait for the owner, but only as long as that costs no more than their `patience`.
3. `liveness` looks for neighbours that are silent or slow, and takes back what they
   owe, so that it is asked elsewhere.

What is delivered goes to the writer only if it was asked for and is still needed
(`Accept`). The writer's judgement comes back as an event. A neighbour that gave
something wrong is dropped for this update; one that claims what it does not deliver
loses its rank, and nothing is asked of it twice that it denied.

State is bounded: sets of objects are integers of one bit an object, a few for each
neighbour, and what a neighbour claims about objects we do not want is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final

from p2p.ostree.objects import ObjectName
from p2p.swarm import delivery, knowing, sourcing
from p2p.swarm import event as e
from p2p.swarm.action import Action
from p2p.swarm.allotment import Allotment
from p2p.swarm.catalogue import Catalogue
from p2p.swarm.demand import Demand
from p2p.swarm.inquiry import Inquiry
from p2p.swarm.lane import Lane
from p2p.swarm.large import Splits
from p2p.swarm.lifecycle import State
from p2p.swarm.liveness import check_silence, deadline, review_speed
from p2p.swarm.membership import Members
from p2p.swarm.news import News
from p2p.swarm.parts import Parts
from p2p.swarm.site import Site, Tally
from p2p.swarm.stuck import Stuck
from p2p.swarm.tuning import Limits, Tuning
from p2p.wire.messages import DeviceId

if TYPE_CHECKING:
    from random import Random

_Handler = Callable[[Parts, Any, float], None]

HANDLERS: Final[Mapping[type[e.Event], _Handler]] = {
    e.PeerJoined: knowing.joined,
    e.PeerLeft: knowing.left,
    e.HoldingsChanged: knowing.holdings_changed,
    e.HaveChanged: knowing.have_changed,
    e.AskAnswered: knowing.ask_answered,
    e.SizesReported: knowing.sizes_reported,
    e.Wanted: knowing.wanted,
    e.ClosureKnown: knowing.closure_known,
    e.Unwanted: knowing.unwanted,
    e.AlreadyHere: knowing.already_here,
    e.MemberSaid: sourcing.member_said,
    e.MemberGone: sourcing.member_gone,
    e.LimitsChanged: knowing.limits_changed,
    e.MisbehaviourSeen: knowing.misbehaved,
    e.DataArrived: delivery.data_arrived,
    e.StatusReported: delivery.status_reported,
    e.ObjectsDelivered: delivery.objects_delivered,
    e.HashesDelivered: delivery.hashes_delivered,
    e.UnitDelivered: delivery.unit_delivered,
    e.UnitRejected: delivery.unit_rejected,
    e.RequestEnded: delivery.request_ended,
    e.ObjectsVerified: delivery.objects_verified,
    e.ObjectRejected: delivery.object_rejected,
    e.OriginStateChanged: sourcing.state_changed,
    e.OriginProgressed: sourcing.progressed,
    e.OriginDelivered: sourcing.delivered,
    e.OriginFailed: sourcing.failed,
}
"""What each event does; docs/swarm.md lists the same."""

# Signs of life and progress put deadlines off and ask for no decision; news do if there
# is anybody to ask because of them, and what members say if the origin is of use to us.
_QUIET = {
    e.DataArrived,
    e.HaveChanged,
    e.MemberSaid,
    e.OriginProgressed,
    e.StatusReported,
}


class Scheduler:
    """The swarm's brain for one device; see the module's theory of operation."""

    def __init__(
        self,
        me: DeviceId,
        *,
        rng: Random,
        tuning: Tuning | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Start with no neighbours and nothing wanted; the origin is usable.

        Args:
            me: our own device id.
            rng: breaks ties and spreads times; used by nobody else.
            tuning: numbers a site has in common.
            limits: what this device allows.

        """
        tuning = tuning or Tuning()
        catalogue = Catalogue(tuning, rng)
        members = Members(tuning.suspicion)
        site = Site(me, tuning, rng, catalogue, members, limits or Limits())
        splits = Splits(site)
        lane = Lane(site, splits)
        demand = Demand(site, splits)
        self._parts = Parts(site, splits, lane, demand, News(site))
        self._inquiry = Inquiry(site)
        self._allotment = Allotment(site)
        self._stuck = Stuck(site, splits, lane)
        self._reviewed = 0.0
        self._timeout = inf

    def __repr__(self) -> str:
        site = self._parts.site
        return (
            f"<Scheduler {site.catalogue!r}, {len(site.neighbours)} neighbours, "
            f"{site.outstanding} bytes due, {len(site.fetches)} fetches>"
        )

    # -- the three calls -----------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> None:
        """Apply what happened; `now` never goes back. Call `actions` soon after."""
        if type(event) not in _QUIET:
            self._parts.site.is_stirred = True
        HANDLERS[type(event)](self._parts, event, now)

    def actions(self, now: float) -> list[Action]:
        """Return what to do now, in this order."""
        parts = self._parts
        site = parts.site
        if not site.is_stirred and now < self._timeout:
            return []
        site.is_stirred = False
        if now >= self._reviewed + site.tuning.review:
            self._review(now)
        check_silence(site, now)
        site.members.review(now)
        self._inquiry.run(now)
        parts.lane.rank()
        parts.demand.run(now)
        parts.lane.run(now)
        parts.news.run(now)
        self._allotment.run()
        self._stuck.run(now)
        self._timeout = self._find_timeout(now)
        out = site.out
        site.out = []
        return out

    @property
    def is_stirred(self) -> bool:
        """Tell whether something happened that calls for a decision."""
        return self._parts.site.is_stirred

    def next_timeout(self) -> float | None:
        """Return when to call `actions` though nothing happens; None for never."""
        return None if self._timeout == inf else self._timeout

    def _find_timeout(self, now: float) -> float:
        parts = self._parts
        site = parts.site
        times = [
            self._inquiry.deadline(),
            parts.lane.deadline(),
            parts.news.deadline(),
            self._stuck.deadline(),
            site.members.deadline(),
        ]
        if site.fetches or site.outstanding:
            times.append(self._reviewed + site.tuning.review)
        soonest = inf
        for time in times:
            if time is not None and now < time < soonest:
                soonest = time
        for neighbour in site.neighbours.values():
            soonest = min(soonest, deadline(site, neighbour, now, soonest))
        return soonest

    def _review(self, now: float) -> None:
        parts = self._parts
        self._reviewed = now
        review_speed(parts.site, now)
        parts.splits.give_up_doubtful(now)
        parts.lane.review(now)
        parts.demand.hedge(now)

    # -- how it stands -------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        """Tell whether everything wanted so far is verified and here."""
        return not self._parts.site.catalogue.having(
            State.OPEN,
            State.ASKED,
            State.FETCHING,
            State.LANDED,
            State.SPLIT,
            State.HIDDEN,
        )

    @property
    def tally(self) -> Tally:
        """Bytes received, by where they came from."""
        return self._parts.site.tally

    def missing(self) -> tuple[ObjectName, ...]:
        """Return the wanted objects that are not verified yet."""
        catalogue = self._parts.site.catalogue
        bits = catalogue.having(
            State.OPEN, State.ASKED, State.FETCHING, State.LANDED, State.SPLIT
        )
        return catalogue.names_of(bits & ~catalogue.units)
