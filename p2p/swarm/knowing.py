"""Events about who is there, what they have, and what we want."""

from __future__ import annotations

from p2p.swarm import event as e
from p2p.swarm.action import Blame, DropPeer
from p2p.swarm.bits import less, pack, span, unite
from p2p.swarm.hearsay import take_large, take_sizes
from p2p.swarm.lifecycle import State, Step
from p2p.swarm.liveness import note_content
from p2p.swarm.neighbour import Kind, Neighbour
from p2p.swarm.parts import Parts
from p2p.wire.messages import Held


def joined(parts: Parts, event: e.PeerJoined, now: float) -> None:
    """Take a new neighbour; a banned device is sent away again."""
    site = parts.site
    blame = site.banned.get(event.peer)
    if blame is not None:
        site.emit(DropPeer(event.peer, blame, banned=True))
        return
    former = site.neighbours.get(event.peer)
    if former is not None:
        site.leave(former, now)
    site.neighbours[event.peer] = Neighbour(
        event.peer,
        max_requests=event.max_requests,
        max_names=event.max_names,
    )
    site.members.met(event.peer)
    site.membership += 1


def left(parts: Parts, event: e.PeerLeft, now: float) -> None:
    """Forget a neighbour."""
    neighbour = parts.site.neighbours.get(event.peer)
    if neighbour is not None:
        parts.site.leave(neighbour, now)


def misbehaved(parts: Parts, event: e.MisbehaviourSeen, now: float) -> None:
    """Do not listen to a device again during this update."""
    parts.site.drop(event.peer, Blame.PROTOCOL, now)


def holdings_changed(parts: Parts, event: e.HoldingsChanged, _now: float) -> None:
    """Take all that a neighbour shares in place of what it shared before."""
    site = parts.site
    neighbour = site.neighbours.get(event.peer)
    if neighbour is None:
        return
    before = neighbour.held
    neighbour.held = dict(event.commits)
    neighbour.unmapped = {}
    for commit in [c for c in neighbour.mapped if c not in neighbour.held]:
        del neighbour.mapped[commit]
    if any(commit not in before for commit in neighbour.held):
        neighbour.asked = 0  # It may have other objects than it had.
    site.imply(neighbour)
    for commit, held in neighbour.held.items():
        if held is Held.COMPLETE and before.get(commit) is not held:
            # What it denied before has come.
            neighbour.absent = less(
                neighbour.absent, site.catalogue.members.get(commit, 0)
            )
            neighbour.learned += 1
    site.membership += 1


def have_changed(parts: Parts, event: e.HaveChanged, now: float) -> None:
    """Note what a neighbour has, and stop fetching it if that is early enough."""
    site = parts.site
    neighbour = site.neighbours.get(event.peer)
    if neighbour is None:
        return
    items = site.catalogue.find_all(event.names)
    bits = pack(items)
    bits |= parts.splits.units_of(bits)
    for had in event.units:
        bits |= _units(parts, neighbour, had)
    if event.mapped is not None:
        neighbour.mapped[event.mapped] = None
    fresh = less(bits, neighbour.announced) & site.catalogue.having(State.OPEN)
    if fresh:
        _credit_fresh(parts, neighbour, fresh, now)
    neighbour.announce(bits)
    parts.lane.leave_to_neighbours(bits, now)
    is_useful = fresh and parts.demand.has_room(neighbour, now)
    if is_useful or event.mapped is not None or site.out:
        site.is_stirred = True


def _units(parts: Parts, neighbour: Neighbour, had: e.UnitsHad) -> int:
    """Note which units it has, and no others; return them."""
    item = parts.site.catalogue.find(had.name)
    if item is None:
        return 0
    split = parts.splits.get(item)
    units = had.units
    if units.bit_length() > parts.site.tuning.max_units:
        units &= span(0, parts.site.tuning.max_units)
    neighbour.lists = less(neighbour.lists, 1 << item)
    if units:
        neighbour.lists |= 1 << item
    if split is None:
        if units:
            # Only large objects have units; its hashes will tell.
            take_large(parts.site, neighbour, item)
            parts.site.is_stirred = True
        neighbour.announce_early(item, units)
        return 0
    found = units << split.first & split.bits
    if not neighbour.announced >> item & 1:
        withdrawn = less(split.bits, found)
        neighbour.announced = less(neighbour.announced, withdrawn)
    return found


def _credit(parts: Parts, neighbour: Neighbour, bits: int, now: float) -> None:
    """A neighbour got what we need: it is at work, as far as we believe it."""
    site = parts.site
    fresh = less(bits, neighbour.announced) & site.catalogue.having(State.OPEN)
    if fresh:
        _credit_fresh(parts, neighbour, fresh, now)


def _credit_fresh(parts: Parts, neighbour: Neighbour, fresh: int, now: float) -> None:
    site = parts.site
    _believe(parts, neighbour, site.catalogue.expect_sum(fresh), now)
    member = site.members.get(neighbour.id)
    if member is not None:
        others = unite(one.announced for one in site.neighbours.values())
        parts.lane.suspicion.brought(less(fresh, others), member, now)


def _believe(parts: Parts, neighbour: Neighbour, size: int, now: float) -> None:
    site = parts.site
    allowed = site.tuning.credit_bytes + neighbour.delivered - neighbour.credited
    size = min(size, allowed)
    if size > 0:
        neighbour.credited += size
        parts.lane.win(size)
        member = site.members.get(neighbour.id)
        if member is not None:
            member.progressed = now


def ask_answered(parts: Parts, event: e.AskAnswered, now: float) -> None:
    """Take sizes of what a neighbour has; what is absent may still come."""
    site = parts.site
    neighbour = site.neighbours.get(event.peer)
    if neighbour is None:
        return
    request = neighbour.requests.get(event.request)
    if request is None or request.kind is not Kind.ASK:
        site.drop(event.peer, Blame.UNREQUESTED, now)
        return
    items = site.end(neighbour, request, now)
    site.answers += 1
    note_content(site, neighbour, now)
    told = zip(items, event.sizes, strict=False)
    present = [(item, size) for item, size in told if size is not None]
    take_sizes(site, neighbour, present)
    bits = pack(item for item, _ in present)
    _credit(parts, neighbour, bits, now)
    neighbour.announce(bits)
    parts.lane.leave_to_neighbours(bits, now)


def sizes_reported(parts: Parts, event: e.SizesReported, _now: float) -> None:
    """Take sizes the publisher signed."""
    parts.site.catalogue.sign_sizes(event.sizes)


def wanted(parts: Parts, event: e.Wanted, _now: float) -> None:
    """Want more objects."""
    site = parts.site
    site.membership += event.commit not in site.catalogue.members
    if site.catalogue.want(event.commit, event.names):
        site.imply_all(event.commit)


def closure_known(parts: Parts, event: e.ClosureKnown, _now: float) -> None:
    """Watch neighbours from now on."""
    parts.site.closed[event.commit] = None


def unwanted(parts: Parts, event: e.Unwanted, now: float) -> None:
    """Forget a commit and what only it needs."""
    site = parts.site
    site.closed.pop(event.commit, None)
    gone = site.catalogue.unwant(event.commit)
    site.membership += 1
    for item in [item for item in site.fetches if gone >> item & 1]:
        fetch = site.fetches[item]
        if not fetch.cancelled:
            parts.lane.cancel(item, fetch)
    parts.splits.abandon(gone, now)
    for neighbour in site.neighbours.values():
        for request in list(neighbour.requests.values()):
            is_watch = request.kind is Kind.WATCH and request.commit == event.commit
            if is_watch and not request.cancelled:
                site.cancel(neighbour, request, now)


def already_here(parts: Parts, event: e.AlreadyHere, _now: float) -> None:
    """Do not ask for what the repository has."""
    catalogue = parts.site.catalogue
    catalogue.shift(Step.FIND, pack(catalogue.find_all(event.names)))


def limits_changed(parts: Parts, event: e.LimitsChanged, _now: float) -> None:
    """Keep to other limits from now on."""
    parts.site.limits = event.limits
