"""The numbers the scheduler works with, each with its reason; times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from p2p.wire.limits import LARGE_OBJECT_BYTES, MAX_OBJECT_UNITS, UNIT_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """What the device allows; may change while the scheduler runs.

    Attributes:
        request_bytes: how much may be asked of all neighbours together.
        backlog_bytes: how much may wait for the writer before no more is asked.
        origin_requests: how many objects the origin is asked for at once.
        download_rate: bytes/s that are read from all neighbours together at most;
            who waits for us to read is neither slow nor silent.
        origin_rate: bytes/s at which the whole site may fetch from the origin.

    """

    request_bytes: int = 16 * UNIT_BYTES
    backlog_bytes: int = 32 * UNIT_BYTES
    origin_requests: int = 256
    download_rate: float | None = None
    origin_rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What a site would have to agree on, or nobody should need to change.

    Attributes:
        window: how much is asked of one neighbour ahead of what it delivered, as
            time at its rate; but one unit at least. Short, so that what is not
            given yet can still be asked of somebody else.
        silence: a neighbour that gives nothing for so long while content is due, or
            says nothing while anything is, is not waited for; longer where all pause
            longer. Givers send STATUS five times a second.
        dataless: the same for one that only sends STATUS, if it is no content but
            what has to be looked up first.
        suspicion: a silent neighbour is no member of the site after so long.
        farewell: a silent neighbour's session is ended after so long.
        slow_ratio: slower than this many times the median is snubbed.
        least_eta: whoever delivers all within this is never too slow.
        hedge_share: duplicates we pay for, of all bytes received.
        announce: how long news for neighbours are collected.
        report: how often it is looked whether members should hear something else.
        progress: how often they hear how far what we fetch has come.
        poll: how often a neighbour without a map is asked for what nobody has.
        review: how often slow neighbours and stuck objects are looked for.
        rest: first pause after a failure; doubles each time up to `longest_rest`.
        not_found_rest: how long an object the origin lacks is not asked there.
        patience, patience_spread: how much time may be lost on neighbours before
            the origin is asked for what is theirs to fetch: the first plus a random
            part of the second, so that a site does not lose patience at once.
        nominal_rate: bytes/s the origin is taken to give before it was measured.
        credit_bytes: how much unproved progress of a neighbour counts, beyond what
            it has delivered.
        committee: how many get a commit from the origin for the others; more flows
            on a thin link only make each of them late.
        valve: how many others use the origin once they lost patience.
        own_lease_bytes: objects above this are owned one by one, not by bucket.
        origin_least: objects asked of the origin before its rate is known.
        hush, longest_hush: when we begin to use the origin it is asked for one object
            at a time until nobody new was heard of for so long, but not longer than
            the second: so members know of each other before much is fetched twice.
        ask_names, batch_names: how many names one ASK or WANT carries.
        most_faults: claims a neighbour may fail to fulfil beyond what it served.
        watches: how many commits of one neighbour are watched at once.
        max_unit_items: units numbered in one update; what exceeds it is not cut.
        unproved_units: units of large objects under way on one neighbour's word, if
            it is not for a single object.

    """

    unit_bytes: int = UNIT_BYTES
    large_bytes: int = LARGE_OBJECT_BYTES
    max_units: int = MAX_OBJECT_UNITS
    window: float = 0.25
    silence: float = 0.3
    dataless: float = 5.0
    suspicion: float = 2.0
    farewell: float = 10.0
    slow_ratio: float = 8.0
    least_eta: float = 1.0
    hedge_share: float = 0.02
    announce: float = 0.05
    report: float = 0.25
    progress: float = 1.0
    poll: float = 0.25
    review: float = 0.1
    rest: float = 0.25
    longest_rest: float = 30.0
    not_found_rest: float = 60.0
    patience: float = 5.0
    patience_spread: float = 5.0
    nominal_rate: float = 256 << 10
    credit_bytes: int = 16 << 20
    committee: int = 8
    valve: int = 2
    own_lease_bytes: int = 1 << 20
    origin_least: int = 8
    hush: float = 0.5
    longest_hush: float = 3.0
    ask_names: int = 4096
    batch_names: int = 512
    most_faults: int = 64
    watches: int = 4
    max_unit_items: int = 1_000_000
    unproved_units: int = 4096
