"""Events about what neighbours deliver, and the writer's judgement of it."""

from __future__ import annotations

from typing import assert_never

from p2p.swarm import event as e
from p2p.swarm.action import AcceptUnit, Blame
from p2p.swarm.bits import pack
from p2p.swarm.hearsay import refute, take_large
from p2p.swarm.large import Verdict
from p2p.swarm.lifecycle import State, Step
from p2p.swarm.liveness import note_content, note_life, note_queue, recover
from p2p.swarm.neighbour import Kind, Neighbour, Request
from p2p.swarm.parts import Parts
from p2p.wire.messages import DeviceId, Miss, RequestId

# When a large object is asked of somebody again whose list is not wanted now.
_LATER = 1.0
_NOT_NOW = {e.Outcome.BUSY, e.Outcome.CANCELLED, e.Outcome.ELSEWHERE}
# A busy neighbour is asked again no sooner, whatever it says.
_LEAST_BUSY = 0.05


def _find(
    parts: Parts, peer: DeviceId, number: RequestId, now: float, *kinds: Kind
) -> tuple[Neighbour, Request] | None:
    """Return who answers which request; drop who was not asked for it."""
    neighbour = parts.site.neighbours.get(peer)
    if neighbour is None:
        return None
    request = neighbour.requests.get(number)
    if request is None or request.kind not in kinds:
        parts.site.drop(peer, Blame.UNREQUESTED, now)
        return None
    note_life(parts.site, neighbour, now)
    return neighbour, request


# -- signs of life -----------------------------------------------------------------


def data_arrived(parts: Parts, event: e.DataArrived, now: float) -> None:
    """Measure how fast a neighbour delivers."""
    neighbour = parts.site.neighbours.get(event.peer)
    if neighbour is not None:
        note_content(parts.site, neighbour, now)
        neighbour.meter.add(event.byte_count, now)


def status_reported(parts: Parts, event: e.StatusReported, now: float) -> None:
    """Note that a neighbour lives, and whether its queue gets shorter."""
    neighbour = parts.site.neighbours.get(event.peer)
    if neighbour is not None:
        note_queue(neighbour, event.queued_bytes, now)
        note_life(parts.site, neighbour, now)


# -- content -----------------------------------------------------------------------


def objects_delivered(parts: Parts, event: e.ObjectsDelivered, now: float) -> None:
    """Pass objects on to the writer if they were asked for and are still needed."""
    site = parts.site
    found = _find(parts, event.peer, event.request, now, Kind.BATCH)
    if found is None:
        return
    neighbour, request = found
    note_content(site, neighbour, now)
    sizes: dict[int, int] = {}
    for name, size in event.objects:
        item = site.catalogue.find(name)
        if item is None or item not in request.items or item in sizes:
            site.drop(event.peer, Blame.UNREQUESTED, now)
            return
        sizes[item] = size
    bits = pack(sizes)
    signed = site.catalogue.signed & bits
    if signed and any(
        signed >> item & 1 and size != site.catalogue.sizes[item]
        for item, size in sizes.items()
    ):
        site.drop(event.peer, Blame.WRONG_SIZE, now)
        return
    for item in sizes:
        del request.items[item]
    _count(parts, neighbour, request, len(sizes), sum(sizes.values()))
    overlaps = (
        request.cancelled or site.lapsed or not site.hedged.keys().isdisjoint(sizes)
    )
    taken = site.land(bits, sizes, neighbour.id)
    _reward(parts, neighbour, sum(sizes[item] for item in taken))
    if overlaps:
        site.withdraw_settled(now)


def _count(
    parts: Parts, neighbour: Neighbour, request: Request, items: int, size: int
) -> None:
    request.delivered += items
    neighbour.served += items
    parts.site.reduce(neighbour, request, size)
    parts.site.tally.neighbours += size


def _reward(parts: Parts, neighbour: Neighbour, size: int) -> None:
    if size:
        neighbour.stalls = 0
        parts.lane.win(size)


def hashes_delivered(parts: Parts, event: e.HashesDelivered, now: float) -> None:
    """Cut a large object, or learn that it is none."""
    site = parts.site
    found = _find(parts, event.peer, event.request, now, Kind.HASHES)
    if found is None:
        return
    neighbour, request = found
    note_content(site, neighbour, now)
    item = next(iter(request.items), None)
    if item is None or event.first != request.first:
        site.drop(event.peer, Blame.UNREQUESTED, now)
        return
    del request.items[item]
    request.delivered += 1
    site.catalogue.shift(Step.RETURN, 1 << item)
    match parts.splits.take_hashes(item, event, now):
        case Verdict.TAKEN:
            neighbour.served += 1
        case Verdict.SMALL:
            # True or not, it is asked for all of it, and for its hashes no more.
            neighbour.whole |= 1 << item
        case Verdict.LATER:
            neighbour.defer(1 << item, now + _LATER)
        case Verdict.DISTRUSTED | Verdict.OTHER:
            neighbour.deny(1 << item)
        case Verdict.USELESS:
            neighbour.faults += 1
            neighbour.deny(1 << item)
        case verdict:
            assert_never(verdict)
    parts.splits.expect_page(item)


def unit_delivered(parts: Parts, event: e.UnitDelivered, now: float) -> None:
    """Keep a unit if it is still needed; its object may be complete with it."""
    site = parts.site
    found = _find(parts, event.peer, event.request, now, Kind.UNIT)
    if found is None:
        return
    neighbour, request = found
    note_content(site, neighbour, now)
    item = next(iter(request.items), None)
    if item is None:
        site.drop(event.peer, Blame.UNREQUESTED, now)
        return
    del request.items[item]
    size = site.catalogue.sizes[item]
    _count(parts, neighbour, request, 1, size)
    overlaps = request.cancelled or site.lapsed or item in site.hedged
    split = parts.splits.of_unit(item)
    if split is None or not site.catalogue.shift(Step.PASS, 1 << item):
        site.tally.duplicate += size
        return
    site.settle(item, from_origin=False)
    name = site.name(item)
    site.emit(AcceptUnit(name, item - split.first))
    parts.news.add_unit(name, now)
    split.moved = now
    split.taken += size
    # Who made a list up could feed us for ever: beyond this we lose patience.
    if split.taken <= site.tuning.credit_bytes + neighbour.delivered:
        _reward(parts, neighbour, size)
    parts.splits.check_complete(split)
    if overlaps:
        site.withdraw_settled(now)


def unit_rejected(parts: Parts, event: e.UnitRejected, now: float) -> None:
    """Blame who signed the hashes it contradicts; remember who contradicts others."""
    site = parts.site
    found = _find(parts, event.peer, event.request, now, Kind.UNIT)
    if found is None:
        return
    neighbour, request = found
    note_content(site, neighbour, now)
    item = next(iter(request.items), None)
    if item is None:
        site.drop(event.peer, Blame.UNREQUESTED, now)
        return
    del request.items[item]
    request.delivered += 1
    site.tally.rejected += site.catalogue.sizes[item]
    site.catalogue.shift(Step.RETURN, 1 << item)
    split = parts.splits.of_unit(item)
    if split is None:
        return
    if split.author_of(item) in {None, neighbour.id}:
        site.drop(neighbour.id, Blame.WRONG_BYTES, now)
    else:
        parts.splits.strike(split, neighbour, gave=True)


# -- the end of a request ----------------------------------------------------------


def request_ended(parts: Parts, event: e.RequestEnded, now: float) -> None:
    """Forget a request and draw conclusions from how it ended."""
    site = parts.site
    found = _find(parts, event.peer, event.request, now, *Kind)
    if found is None:
        return
    neighbour, request = found
    if event.outcome is e.Outcome.DONE:
        site.revive(neighbour, request, now)
    site.end(neighbour, request, now)
    is_answer = event.outcome is not e.Outcome.CANCELLED
    if is_answer or not neighbour.owes_late:
        recover(site, neighbour, now)
    site.answers += request.kind in {Kind.ASK, Kind.WATCH}
    if request.kind is Kind.ASK and event.outcome in _NOT_NOW:
        neighbour.ask_again(request)
    if request.commit is not None:
        neighbour.mapped.pop(request.commit, None)
        neighbour.unmapped[request.commit] = None
        return
    _judge(parts, neighbour, request, event, now)
    if neighbour.faults > site.tuning.most_faults + neighbour.served:
        site.drop(neighbour.id, Blame.USELESS, now)


def _judge(
    parts: Parts,
    neighbour: Neighbour,
    request: Request,
    event: e.RequestEnded,
    now: float,
) -> None:
    tuning = parts.site.tuning
    match event.outcome:
        case e.Outcome.DONE:
            _judge_answer(parts, neighbour, request, event, now)
        case e.Outcome.NOT_HAVE | e.Outcome.REJECTED:
            _take_denial(parts, neighbour, request)
        case e.Outcome.ELSEWHERE:
            neighbour.refer(1, pack(request.items), now)
        case e.Outcome.BUSY:
            rest = min(max(event.seconds, _LEAST_BUSY), tuning.longest_rest)
            neighbour.rest = max(neighbour.rest, now + rest)
        case e.Outcome.CANCELLED:
            if not request.cancelled:
                neighbour.rest = max(neighbour.rest, now + tuning.rest)
        case outcome:
            assert_never(outcome)


def _take_denial(parts: Parts, neighbour: Neighbour, request: Request) -> None:
    item = next(iter(request.items), None)
    split = None
    if request.kind is Kind.UNIT and item is not None:
        split = parts.splits.of_unit(item)
    is_whole = split is not None and neighbour.holds >> split.item & 1
    author = None if split is None or item is None else split.author_of(item)
    if split is not None and is_whole and author != neighbour.id:
        # It has the object, so that it is the list that may be false.
        parts.splits.strike(split, neighbour, gave=False)
    else:
        _deny(neighbour, pack(request.items))


def _judge_answer(
    parts: Parts,
    neighbour: Neighbour,
    request: Request,
    event: e.RequestEnded,
    now: float,
) -> None:
    catalogue = parts.site.catalogue
    denied: list[int] = []
    elsewhere: list[int] = []
    too_large = 0
    for name, miss in event.misses:
        item = catalogue.find(name)
        if item is None or item not in request.items:
            continue
        if miss is Miss.NOT_HAVE:
            denied.append(item)
        elif miss is Miss.ELSEWHERE:
            elsewhere.append(item)
        elif miss is Miss.TOO_LARGE:
            neighbour.refused |= 1 << item
            too_large += 1
            take_large(parts.site, neighbour, item)
    if denied:
        _deny(neighbour, pack(denied))
    if request.kind in {Kind.BATCH, Kind.UNIT}:
        asked = len(elsewhere) + request.delivered
        neighbour.refer(max(asked, 1), pack(elsewhere), now)
    if request.items and not (request.delivered or denied or elsewhere or too_large):
        # An answer without anything in it: asking again would not end.
        _deny(neighbour, pack(request.items))


def _deny(neighbour: Neighbour, bits: int) -> None:
    """It said it had these and has not: note it, and that it breaks its word."""
    neighbour.faults += bool(neighbour.holds & bits)
    neighbour.deny(bits)


# -- the writer's judgement --------------------------------------------------------


def objects_verified(parts: Parts, event: e.ObjectsVerified, now: float) -> None:
    """These are here for good: others may have them."""
    site = parts.site
    items = site.catalogue.find_all(event.names)
    verified = site.catalogue.shift(Step.VERIFY, pack(items))
    names = []
    for item in items:
        if not verified >> item & 1:
            continue
        names.append(site.name(item))
        landed = site.landed.pop(item, None)
        if landed is not None:
            site.backlog -= landed.size
            giver = site.neighbours.get(landed.giver) if landed.giver else None
            if giver is not None:
                giver.delivered += landed.size
        parts.lane.refused.pop(item, None)
        parts.splits.finish(item, now)
    refute(site, verified)
    parts.news.add_objects(names, now)


def object_rejected(parts: Parts, event: e.ObjectRejected, now: float) -> None:
    """Drop who gave a wrong object, and ask somebody else."""
    site = parts.site
    item = site.catalogue.find(event.name)
    if item is None or not site.catalogue.having(State.LANDED) >> item & 1:
        return
    landed = site.landed.pop(item, None)
    split = parts.splits.get(item)
    if landed is None:
        assert split is not None  # noqa: S101 - else somebody gave it as a whole
        parts.splits.convict(split, now)
        return
    site.backlog -= landed.size
    site.tally.rejected += landed.size
    if landed.giver is not None:
        site.catalogue.shift(Step.REJECT, 1 << item)
        site.drop(landed.giver, Blame.WRONG_BYTES, now)
        return
    if not parts.splits.resume(item):
        site.catalogue.shift(Step.REJECT, 1 << item)
    parts.lane.refuse(item, e.Failure.DAMAGED, now)
