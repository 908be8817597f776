"""The parts of a scheduler, as the handlers of events see them."""

from __future__ import annotations

from dataclasses import dataclass

from p2p.swarm.demand import Demand
from p2p.swarm.lane import Lane
from p2p.swarm.large import Splits
from p2p.swarm.news import News
from p2p.swarm.site import Site


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Everything an event may change, and it alone while it is applied."""

    site: Site
    splits: Splits
    lane: Lane
    demand: Demand
    news: News
