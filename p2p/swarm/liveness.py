"""Who is not worth waiting for: silent, stuck or slow neighbours, and what then.

A giver says something at least five times a second while a request waits: content,
or STATUS. Who is silent longer is asked for nothing until it speaks, and what it owes
is asked elsewhere. Who speaks but is much slower than the others keeps one unit, and
loses even that if somebody else has it.
"""

from __future__ import annotations

from math import inf
from statistics import median_low

from p2p.swarm.action import Blame
from p2p.swarm.bits import less, pack
from p2p.swarm.lifecycle import State
from p2p.swarm.neighbour import Kind, Neighbour
from p2p.swarm.site import Site

# Time lost by sparing a neighbour is counted so often.
ACCOUNTING = 0.02
# Requests that another neighbour could fulfil.
_GIVING = {Kind.BATCH, Kind.UNIT, Kind.HASHES}
# A queue that does not get shorter for so long is not being served.
_QUEUE_STANDS = 1.0
# A duplicate must save at least so much.
_WORTHWHILE = 0.2
# A neighbour that gave nothing yet is expected to take so long.
_UNMEASURED = 0.5
# More in a row make no difference.
_MOST_STALLS = 16
# Nobody else may have what it has: a neighbour that stalls again costs `silence`.
_LONGEST_PAUSE = 2.0
# If we read slowly, neighbours take turns, and of each a whole record of TLS, 16 KiB,
# must be here before any of it counts.
_UNREAD_BYTES = 8 * (16 << 10)
# What was taken from a slow neighbour is not given back to it at once.
_DEFER = 10.0


def note_life(site: Site, neighbour: Neighbour, now: float) -> None:
    """A neighbour said something about our requests."""
    neighbour.heard = now
    if neighbour.stalled is not None:
        neighbour.stalled = None
        rest = site.tuning.rest * 2.0 ** (neighbour.stalls - 1)
        neighbour.rest = now + min(rest, _LONGEST_PAUSE)
        site.membership += neighbour.is_suspect
        neighbour.is_suspect = False
        site.answers += 1
        site.is_stirred = True


def note_queue(neighbour: Neighbour, queued: int, now: float) -> None:
    """A neighbour told how much it has to send before our request."""
    if neighbour.queued is None or queued < neighbour.queued:
        neighbour.shrunk = now
    neighbour.queued = queued


def silent_at(site: Site, neighbour: Neighbour) -> float:
    """Return when a neighbour that says nothing more is not waited for."""
    tuning = site.tuning
    ours = site.seconds_to_read(_UNREAD_BYTES)
    silence, dataless = tuning.silence + ours, tuning.dataless + ours
    return min(neighbour.heard + silence, neighbour.fed + dataless)


def deadline(site: Site, neighbour: Neighbour, after: float) -> float:
    """Return when, after a time, a neighbour wants attention; inf for never."""
    soonest = inf
    if neighbour.stalled is not None:
        suspicion = neighbour.stalled + site.tuning.suspicion
        soonest = neighbour.stalled + site.tuning.farewell
        if suspicion > after:
            soonest = suspicion
    elif neighbour.waiting:
        soonest = silent_at(site, neighbour)
    if after < neighbour.rest < soonest:
        soonest = neighbour.rest
    if neighbour.is_spared:
        grace = neighbour.grace.deadline() or inf
        soonest = min(soonest, max(grace, after + ACCOUNTING))
    for until, _ in neighbour.deferred:
        # What is over already is noticed when there is something to ask for.
        if after < until < soonest:
            soonest = until
    return soonest


def stall(site: Site, neighbour: Neighbour, now: float) -> None:
    """Do not wait for a neighbour: ask elsewhere for all it owes."""
    neighbour.stalled = now
    neighbour.stalls = min(neighbour.stalls + 1, _MOST_STALLS)
    site.epoch += 1
    site.recall_deferred()
    for request in list(neighbour.requests.values()):
        if request.kind is not Kind.WATCH:
            site.cancel(neighbour, request, now)


def check_silence(site: Site, now: float) -> None:
    """Stall who is silent; end the session of who has been for long."""
    for neighbour in list(site.neighbours.values()):
        if neighbour.stalled is not None:
            if now >= neighbour.stalled + site.tuning.farewell:
                site.drop(neighbour.id, Blame.SILENT, now)
            elif now >= neighbour.stalled + site.tuning.suspicion:
                site.membership += not neighbour.is_suspect
                neighbour.is_suspect = True
        elif neighbour.waiting and now >= silent_at(site, neighbour):
            stall(site, neighbour, now)


def review_speed(site: Site, now: float) -> None:
    """Snub who is much slower than the others; take back what others have."""
    etas: dict[Neighbour, float] = {}
    for neighbour in site.neighbours.values():
        if neighbour.outstanding:
            neighbour.meter.add(0, now)
            etas[neighbour] = max(neighbour.eta(), now - neighbour.fed)
    least = site.tuning.least_eta
    # Nobody gives us more than we read, and what is asked of all is read by turns.
    asked = max(site.outstanding, 2 * site.tuning.unit_bytes)
    least += site.tuning.slow_ratio * site.seconds_to_read(asked)
    for neighbour, eta in etas.items():
        others = [other for who, other in etas.items() if who is not neighbour]
        usual = median_low(others) if others else 0.0
        bound = max(least, site.tuning.slow_ratio * usual)
        standing = now - neighbour.shrunk - site.seconds_to_read(_UNREAD_BYTES)
        stands = neighbour.queued and standing > _QUEUE_STANDS
        neighbour.snubbed = bool(stands) or eta > bound
        if neighbour.snubbed:
            _relieve(site, neighbour, now)


def _relieve(site: Site, neighbour: Neighbour, now: float) -> None:
    """Ask others for what a slow neighbour owes, as far as they have it."""
    others = 0
    for other in site.neighbours.values():
        if other is not neighbour and other.is_live and not other.snubbed:
            others |= other.offers(now)
    for request in list(neighbour.requests.values()):
        bits = pack(request.items)
        if request.kind in _GIVING and bits & others:
            neighbour.defer(bits, now + _DEFER)
            site.cancel(neighbour, request, now)


def seconds_needed_by(neighbour: Neighbour, size: int) -> float:
    """Return how long an idle neighbour takes to give so much, about."""
    rate = neighbour.meter.rate()
    return size / rate if rate else _UNMEASURED


def is_endgame(site: Site, now: float) -> bool:
    """Tell whether everything that neighbours have is asked for."""
    catalogue = site.catalogue
    if not catalogue.having(State.ASKED):
        return False
    return not catalogue.having(State.OPEN) & site.held_by_others(now)


def hedge_room(site: Site) -> int:
    """Return how many bytes we may ask for twice now."""
    tally = site.tally
    budget = int(site.tuning.hedge_share * (tally.neighbours + tally.origin))
    budget = max(budget, site.tuning.unit_bytes)
    return budget - tally.duplicate - sum(site.hedged.values())


def hedgeable(site: Site, idle: Neighbour, now: float) -> int:
    """Return the items of the slowest request that an idle neighbour would beat."""
    offers = idle.offers(now)
    twice = pack(site.copies)
    best = 0
    worst = 0.0
    for other in site.neighbours.values():
        eta = other.eta() or now - other.fed
        if other is idle or eta <= worst:
            continue
        for request in other.requests.values():
            bits = less(pack(request.items), twice)
            if (
                request.kind in {Kind.BATCH, Kind.UNIT}
                and not request.cancelled
                and bits
                and not less(bits, offers)
                and eta > _WORTHWHILE + 2 * seconds_needed_by(idle, request.left)
            ):
                worst = eta
                best = bits
    return best
