"""Events about the origin."""

from __future__ import annotations

from p2p.swarm import event as e
from p2p.swarm.bits import pack
from p2p.swarm.lane import USELESS
from p2p.swarm.parts import Parts


def state_changed(parts: Parts, event: e.OriginStateChanged, now: float) -> None:
    """Note whether we may use the origin."""
    site = parts.site
    site.origin = event.state
    site.origin_until = now + max(event.seconds, 0.0)
    site.epoch += 1
    if event.state is e.OriginState.OK:
        parts.lane.forgive()


def member_said(parts: Parts, event: e.MemberSaid, now: float) -> None:
    """Note what a member does at the origin, and whether it gets on."""
    site = parts.site
    if event.member == site.me:
        return
    former = site.members.get(event.member)
    before = former.active if former is not None else {}
    member = site.members.said(event.member, event.claim, event.age, now)
    gained = sum(
        max(0, byte_count - before.get(lease, 0))
        for lease, byte_count in member.active.items()
    )
    neighbour = site.neighbours.get(event.member)
    allowed = site.tuning.credit_bytes - member.credited
    allowed += neighbour.delivered if neighbour is not None else 0
    gained = min(gained, allowed)
    if gained > 0:
        member.credited += gained
        member.progressed = member.proved = now
        parts.lane.win(gained)
    if site.is_counted_on(member):
        parts.lane.yield_to(member)
    site.epoch += 1
    if site.out or site.origin not in USELESS:
        site.is_stirred = True


def member_gone(parts: Parts, event: e.MemberGone, _now: float) -> None:
    """Forget a member."""
    parts.site.members.gone(event.member)


def progressed(parts: Parts, event: e.OriginProgressed, now: float) -> None:
    """Note how much of an object came."""
    item = parts.site.catalogue.find(event.name)
    fetch = parts.site.fetches.get(item) if item is not None else None
    if fetch is not None:
        parts.lane.progress(fetch, event.byte_count, now)


def delivered(parts: Parts, event: e.OriginDelivered, now: float) -> None:
    """Pass an object on to the writer if it is still needed."""
    site = parts.site
    item = site.catalogue.find(event.name)
    fetch = site.fetches.get(item) if item is not None else None
    if item is None or fetch is None:
        return
    parts.lane.deliver(fetch, event.size, now)
    parts.lane.end(item, now)
    site.tally.origin += event.size
    exact = event.is_canonical
    if site.land(pack([item]), {item: event.size}, None, is_exact=exact):
        site.withdraw_settled(now)


def failed(parts: Parts, event: e.OriginFailed, now: float) -> None:
    """Try again later, or elsewhere."""
    item = parts.site.catalogue.find(event.name)
    fetch = parts.lane.end(item, now) if item is not None else None
    if item is None or fetch is None:
        return
    if not fetch.cancelled:
        parts.lane.reopen(item)
        if event.failure is not e.Failure.CANCELLED:
            parts.lane.refuse(item, event.failure, now)
