"""Who is not worth waiting for: silent, stuck or slow neighbours, and what then.

A giver says something at least five times a second while a request waits: content, or
STATUS. Of whom no content comes for longer than is usual here is asked nothing until it
gives again. Who gives but is much slower than the others keeps one unit. What either
owes may be asked elsewhere, but is not cancelled: it lapses, for most of it may be on
its way, and is taken if it comes first.
"""

from __future__ import annotations

from math import inf
from statistics import median_low

from p2p.swarm.action import Blame
from p2p.swarm.bits import less, pack, unite
from p2p.swarm.lifecycle import State
from p2p.swarm.neighbour import Kind, Neighbour
from p2p.swarm.site import Site

# Pauses between pieces of content that are this many times the usual are too long.
_USUAL_GAPS = 3.0
# How much of a pause is still expected after the next piece.
_FADE = 0.9
# Who has everything is left to those that lack more for as long as some units take.
_SPARED = 2.0
_SPARED_UNITS = 4
_LONGEST_SPARED = 10.0
# Lists of hashes that were slow to come are not asked of the same again at once.
_DEFER = 10.0
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


def note_life(site: Site, neighbour: Neighbour, now: float) -> None:
    """A neighbour said something about our requests."""
    neighbour.heard = now
    if neighbour.stalled is not None and not neighbour.owes_late:
        recover(site, neighbour, now)
    if neighbour.is_suspect:
        neighbour.is_suspect = False
        site.membership += 1
        site.answers += 1
        site.is_stirred = True


def note_content(site: Site, neighbour: Neighbour, now: float) -> None:
    """A neighbour gave something of what it owes."""
    if neighbour.waiting:
        neighbour.gap = max(now - neighbour.fed, neighbour.gap * _FADE)
    neighbour.fed = now
    note_life(site, neighbour, now)
    recover(site, neighbour, now)


def note_queue(neighbour: Neighbour, queued: int, now: float) -> None:
    """A neighbour told how much it has to send before our request."""
    if neighbour.queued is None or queued < neighbour.queued:
        neighbour.shrunk = now
    neighbour.queued = queued


def recover(site: Site, neighbour: Neighbour, now: float) -> None:
    """Wait for a neighbour again, and ask it again a little later."""
    if neighbour.stalled is None:
        return
    neighbour.stalled = None
    neighbour.is_lost = False
    rest = site.tuning.rest * 2.0 ** (neighbour.stalls - 1)
    neighbour.rest = now + min(rest, _LONGEST_PAUSE)
    neighbour.fed = now
    for request in neighbour.requests.values():
        site.revive(neighbour, request, now)
    site.answers += 1
    site.is_stirred = True


def stalls_at(site: Site, neighbour: Neighbour) -> float:
    """Return when a neighbour that gives nothing more is not waited for."""
    tuning = site.tuning
    patience = min(max(tuning.silence, _USUAL_GAPS * site.pace), tuning.suspicion)
    at = min(neighbour.heard + patience, neighbour.fed + tuning.dataless)
    if neighbour.owes_content:
        # A queue that gets shorter is as good as content, if not for long.
        queue = min(neighbour.shrunk, neighbour.fed + tuning.suspicion)
        at = min(at, max(neighbour.fed, queue) + patience)
    return at + site.seconds_to_read(_UNREAD_BYTES)


def is_trusted(site: Site, neighbour: Neighbour, time: float) -> bool:
    """Tell, with less work than `stalls_at`, that it is waited for until then."""
    tuning = site.tuning
    least = min(tuning.silence, tuning.suspicion, tuning.dataless)
    return time < min(neighbour.heard, neighbour.fed) + least


def spared_until(site: Site, neighbour: Neighbour) -> float:
    """Return when a complete holder is asked for what others could give."""
    if neighbour.spared is None:
        return 0.0
    usual = min(_SPARED_UNITS * site.unit_seconds, _LONGEST_SPARED)
    return neighbour.spared + max(_SPARED, usual)


def deadline(
    site: Site, neighbour: Neighbour, after: float, before: float = inf
) -> float:
    """Return when, between two times, a neighbour wants attention; inf for never."""
    soonest = inf
    if neighbour.stalled is not None:
        tuning = site.tuning
        silent = max(neighbour.stalled, neighbour.heard)
        for time in (
            neighbour.stalled + tuning.suspicion,
            silent + tuning.suspicion,
            silent + tuning.farewell,
        ):
            if after < time < soonest:
                soonest = time
    elif neighbour.waiting and not is_trusted(site, neighbour, before):
        soonest = stalls_at(site, neighbour)
    if after < neighbour.rest < soonest:
        soonest = neighbour.rest
    spared = spared_until(site, neighbour)
    if after < spared < soonest:
        soonest = spared
    for until, _ in neighbour.deferred:
        # What is over already is noticed when there is something to ask for.
        if after < until < soonest:
            soonest = until
    return soonest


def stall(site: Site, neighbour: Neighbour, now: float) -> None:
    """Do not wait for a neighbour: what it owes may be asked elsewhere."""
    neighbour.stalled = now
    neighbour.stalls = min(neighbour.stalls + 1, _MOST_STALLS)
    site.epoch += 1
    site.recall_deferred()
    for request in list(neighbour.requests.values()):
        if request.kind in {Kind.ASK, Kind.HASHES}:
            site.cancel(neighbour, request, now)
        else:
            site.lapse(neighbour, request, now)


def check_silence(site: Site, now: float) -> None:
    """Stall who gives nothing; end the session of who has been silent for long."""
    tuning = site.tuning
    for neighbour in list(site.neighbours.values()):
        if neighbour.stalled is None:
            if (
                neighbour.waiting
                and not is_trusted(site, neighbour, now)
                and now >= stalls_at(site, neighbour)
            ):
                stall(site, neighbour, now)
            continue
        silent = max(neighbour.stalled, neighbour.heard)
        if now >= silent + tuning.farewell:
            site.drop(neighbour.id, Blame.SILENT, now)
            continue
        if not neighbour.is_lost and now >= neighbour.stalled + tuning.suspicion:
            neighbour.is_lost = True
            site.epoch += 1
        if not neighbour.is_suspect and now >= silent + tuning.suspicion:
            neighbour.is_suspect = True
            site.membership += 1


def review_speed(site: Site, now: float) -> None:
    """Snub who is much slower than the others; take back what others have."""
    unit = site.tuning.unit_bytes
    seconds: dict[Neighbour, float] = {}
    for neighbour in site.neighbours.values():
        if neighbour.outstanding:
            neighbour.meter.add(0, now)
        rate = neighbour.meter.rate()
        if rate and neighbour.is_live:
            seconds[neighbour] = unit / rate
    site.unit_seconds = median_low(seconds.values()) if seconds else 0.0
    gaps = [n.gap for n in site.neighbours.values() if n.gap and n.is_live]
    site.pace = median_low(gaps) if gaps else 0.0
    # Nobody gives us more than we read, and what is asked of all is read by turns.
    asked = max(site.outstanding, 2 * unit)
    least = site.tuning.least_eta
    least += site.tuning.slow_ratio * site.seconds_to_read(asked)
    for neighbour in site.neighbours.values():
        neighbour.snubbed = False
        if not neighbour.outstanding:
            continue
        others = [took for who, took in seconds.items() if who is not neighbour]
        usual = median_low(others) if others else 0.0
        took = max(neighbour.eta(), now - neighbour.fed)
        if took > max(least, site.tuning.slow_ratio * usual):
            neighbour.snubbed = True
            _relieve(site, neighbour, now)


def _relieve(site: Site, neighbour: Neighbour, now: float) -> None:
    """Ask others for what a slow neighbour owes, as far as they have it."""
    others = unite(
        other.offers(now)
        for other in site.neighbours.values()
        if other is not neighbour and other.is_live and not other.snubbed
    )
    for request in list(neighbour.requests.values()):
        bits = pack(request.items)
        if not request.is_due or not bits & others:
            continue
        if request.kind is Kind.HASHES:
            neighbour.defer(bits, now + _DEFER)
            site.cancel(neighbour, request, now)
        else:
            site.lapse(neighbour, request, now)


def seconds_needed_by(neighbour: Neighbour, size: int) -> float:
    """Return how long an idle neighbour takes to give so much, about."""
    rate = neighbour.meter.rate()
    return size / rate if rate else _UNMEASURED


def is_endgame(site: Site) -> bool:
    """Tell whether everything that neighbours have is asked for."""
    catalogue = site.catalogue
    if not catalogue.having(State.ASKED):
        return False
    return not catalogue.having(State.OPEN) & site.held_by_others()


def hedge_room(site: Site) -> int:
    """Return how many bytes we may ask for twice now."""
    tally = site.tally
    budget = int(site.tuning.hedge_share * (tally.neighbours + tally.origin))
    budget = max(budget, site.tuning.unit_bytes)
    return budget - tally.duplicate - sum(site.hedged.values())


def hedgeable(site: Site, idle: Neighbour, now: float) -> int:
    """Return the items of the slowest request that an idle neighbour would beat."""
    offers = idle.offers(now)
    twice = pack(site.hedged)
    best = 0
    worst = 0.0
    for other in site.neighbours.values():
        eta = other.eta() or now - other.fed
        if other is idle or eta <= worst:
            continue
        for request in other.requests.values():
            bits = less(pack(request.items), twice)
            if (
                request.is_due
                and request.kind is not Kind.HASHES
                and bits
                and not less(bits, offers)
                and eta > _WORTHWHILE + 2 * seconds_needed_by(idle, request.left)
            ):
                worst = eta
                best = bits
    return best
