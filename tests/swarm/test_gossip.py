"""Member records over a site: everybody hears everything, and not much more."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import pytest

from p2p.swarm.gossip import Gossip, Heard, Member, Pace, Said
from p2p.wire.limits import MAX_DIGEST_VERSIONS
from p2p.wire.messages import DeviceId, Digest, Record
from p2p.wire.record import (
    Active,
    Claim,
    CommitTag,
    OriginState,
    bucket_lease,
    decode_claim,
    encode_claim,
)

IDLE = Claim(origin=OriginState.OK)
BUSY = Claim(origin=OriginState.BUSY, busy_seconds=9)
COMPLETE = Claim(complete=(CommitTag(bytes(16)),))
FETCHING = Claim(active=(Active(bucket_lease(1), 1),))
PACE = Pace()


def device(number: int) -> DeviceId:
    return DeviceId(hashlib.sha256(str(number).encode()).hexdigest())


def sign(member: DeviceId, epoch: int, seq: int, claim: bytes) -> bytes:
    """Return a body that only `member` is taken to be able to make."""
    return f"{member} {epoch} {seq} ".encode() + claim


def read(peer: DeviceId, record: Record) -> Said | None:
    """Read such a body, or a bare claim of the peer; None if it is neither."""
    head = sign(record.member, record.epoch, record.seq, b"")
    if record.body.startswith(head):
        return Said(decode_claim(record.body.removeprefix(head)), is_signed=True)
    if record.member == peer:
        return Said(decode_claim(record.body), is_signed=False)
    return None


def record(number: int, epoch: int, seq: int, claim: Claim, age: int = 0) -> Record:
    member = device(number)
    body = sign(member, epoch, seq, encode_claim(claim))
    return Record(member, epoch, seq, body, age)


@dataclass
class Net:
    """Gossips that reach each other at once; what is `lost` never comes."""

    all: dict[DeviceId, Gossip] = field(default_factory=dict)
    links: dict[DeviceId, dict[DeviceId, None]] = field(default_factory=dict)
    now: float = 0.0
    sent: int = 0
    told: Counter[DeviceId] = field(default_factory=Counter)
    lost: set[DeviceId] = field(default_factory=set)

    def add(self, number: int, *, epoch: int = 1) -> Gossip:
        me = device(number)
        rng = Random(number)
        self.all[me] = Gossip(me, epoch=epoch, rng=rng, sign=sign, read=read)
        self.links[me] = {}
        return self.all[me]

    def link(self, one: DeviceId, other: DeviceId) -> None:
        for near, far in ((one, other), (other, one)):
            self.links[near][far] = None
            seen = self.all[far].seen(near)
            self.all[near].joined(far, self.now, seen=seen)

    def ring(self, degree: int) -> None:
        ids = sorted(self.all)
        for k, one in enumerate(ids):
            for step in range(1, degree // 2 + 1):
                other = ids[(k + step * step) % len(ids)]
                if other != one and other not in self.links[one]:
                    self.link(one, other)

    def settle(self) -> None:
        """Carry everything that is said until nobody has anything to say."""
        busy = True
        while busy:
            busy = False
            for me, gossip in self.all.items():
                for peer, message in gossip.outgoing(self.now):
                    busy = True
                    self.sent += 1
                    if isinstance(message, Record):
                        self.told[message.member] += 1
                    if peer in self.lost or peer not in self.links[me]:
                        continue
                    if isinstance(message, Record):
                        self.all[peer].receive(me, message, self.now)
                    else:
                        self.all[peer].receive_digest(me, message, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self.settle()
        while True:
            soonest = min(gossip.next_timeout() for gossip in self.all.values())
            if soonest > end:
                break
            self.now = max(self.now, soonest)
            self.settle()
        self.now = end


def known(gossip: Gossip, now: float) -> dict[DeviceId, Claim]:
    return {member.id: member.claim for member in gossip.members(now)}


def site(count: int, degree: int = 8) -> Net:
    net = Net()
    for number in range(count):
        net.add(number)
    net.ring(degree)
    for gossip in net.all.values():
        gossip.publish(IDLE)
    net.run(0.1)
    return net


@pytest.mark.parametrize("count", [2, 8, 40])
def test_everybody_hears_of_everybody(count: int) -> None:
    net = site(count)
    net.run(11)
    for gossip in net.all.values():
        assert len(known(gossip, net.now)) == count - 1


def test_a_change_is_heard_at_once_about_four_times_by_each() -> None:
    net = site(100, degree=12)
    net.run(20)
    before = net.sent
    one = net.all[device(5)]
    one.publish(BUSY)
    net.settle()
    told = [known(g, net.now).get(one.me) for g in net.all.values() if g is not one]
    assert told == [BUSY] * 99
    assert net.sent - before <= 4 * 100


def test_what_nobody_waits_for_is_heard_by_all_and_seldom_twice() -> None:
    net = site(100, degree=12)
    net.run(20)
    net.told.clear()
    one = net.all[device(5)]
    one.publish(COMPLETE)
    net.run(10)
    told = [known(g, net.now).get(one.me) for g in net.all.values() if g is not one]
    assert told == [COMPLETE] * 99
    assert net.told[one.me] <= 2 * 100


def test_what_nobody_waits_for_comes_together() -> None:
    gossip = alone(12)
    for number in range(1, 60):
        gossip.receive(device(1), record(number, 1, 1, IDLE), 0.01 * number)
    gossip.outgoing(0.6)
    for number in range(60, 100):
        gossip.receive(device(1), record(number, 1, 1, IDLE), 1.0)
        assert not any(isinstance(m, Record) for _, m in gossip.outgoing(1.0))
    peers = [p for p, m in gossip.outgoing(2.0) if isinstance(m, Record)]
    assert len(peers) > 60
    assert sum(one != other for one, other in pairwise(peers)) < 12


def test_who_told_us_meanwhile_is_not_told() -> None:
    gossip = alone(1)
    gossip.joined(device(2), 0.0, seen=(0, 0))
    for number in range(3, 40):
        gossip.receive(device(1), record(number, 1, 1, IDLE), 0.0)
    gossip.outgoing(0.0)
    late = record(50, 1, 1, IDLE)
    gossip.receive(device(1), late, 5.0)
    gossip.receive(device(2), late, 5.1)
    told = [m for _, m in gossip.outgoing(7.0) if isinstance(m, Record)]
    assert late.member not in {m.member for m in told}


def test_the_ring_is_that_of_the_places() -> None:
    rng = Random(0)
    gossip = Gossip(device(0), epoch=1, rng=rng, sign=sign, read=read, place=b"m")
    for number, place in enumerate(b"abcdefghijklnopqrs", 1):
        gossip.joined(device(number), 0.0, seen=(0, 0), place=bytes([place]))
    for number in range(100, 110):
        gossip.receive(device(1), record(number, 1, 1, FETCHING), 0.0)
    told = [(m.member, p) for p, m in gossip.outgoing(0.0) if isinstance(m, Record)]
    for number in range(100, 110):
        assert (device(number), device(12)) in told
        assert (device(number), device(13)) in told


def test_own_changes_keep_their_distance_and_the_last_one_counts() -> None:
    net = site(2)
    one, other = net.all.values()
    net.run(5)
    seq = one.seq
    for seconds in range(20):
        one.publish(replace(BUSY, busy_seconds=seconds))
        net.run(0.05)
    assert one.seq - seq <= 5
    net.run(0.25)
    assert known(other, net.now)[one.me].busy_seconds == 19


@pytest.mark.parametrize("claim, least, most", [(FETCHING, 55, 61), (IDLE, 1, 2)])
def test_who_fetches_says_so_every_second_and_others_seldom(
    claim: Claim, least: int, most: int
) -> None:
    net = site(2)
    one = next(iter(net.all.values()))
    one.publish(claim)
    seq = one.seq
    net.run(60)
    assert least <= one.seq - seq <= most


def test_what_was_lost_is_made_up_for_by_digests() -> None:
    net = site(12)
    deaf = device(3)
    net.lost.add(deaf)
    for gossip in net.all.values():
        if gossip.me != deaf:
            gossip.publish(BUSY)
    net.run(4)
    net.lost.clear()
    net.run(6)
    assert set(known(net.all[deaf], net.now).values()) == {BUSY}


def test_a_newcomer_learns_the_site_from_one_neighbour() -> None:
    net = site(30)
    net.run(10)
    late = net.add(99)
    net.link(late.me, device(0))
    net.settle()
    assert len(known(late, net.now)) == 30


def test_two_halves_that_meet_again_agree() -> None:
    net = site(12)
    net.run(6)
    ids = sorted(net.all)
    cut = [(a, b) for a in ids[:6] for b in ids[6:] if b in net.links[a]]
    for a, b in cut:
        for near, far in ((a, b), (b, a)):
            del net.links[near][far]
            net.all[near].left(far)
    for gossip in net.all.values():
        gossip.publish(BUSY)
    net.run(6)
    assert IDLE in known(net.all[ids[0]], net.now).values()
    for a, b in cut:
        net.link(a, b)
    net.run(11)
    for gossip in net.all.values():
        assert set(known(gossip, net.now).values()) == {BUSY}


def test_who_is_gone_is_forgotten_everywhere_and_not_brought_back() -> None:
    net = site(12)
    net.run(6)
    gone = sorted(net.all)[4]
    for peer in net.links[gone]:
        net.all[peer].left(gone)
        del net.links[peer][gone]
    del net.all[gone]
    net.run(100)
    # Who comes late hears of it, as old as it is by then.
    late = net.add(99)
    net.link(late.me, sorted(net.all)[3])
    net.run(10)
    assert gone in known(late, net.now)
    net.run(60)
    assert not any(gone in known(g, net.now) for g in net.all.values())
    changes = [g.changes(net.now) for g in net.all.values()]
    assert all((gone, None) in each for each in changes)


# -- one device ------------------------------------------------------------------------


def alone(*numbers: int) -> Gossip:
    """Return device 0's gossip, with sessions to these."""
    rng = Random(0)
    gossip = Gossip(device(0), epoch=5, rng=rng, sign=sign, read=read)
    for number in numbers:
        gossip.joined(device(number), 0.0, seen=(0, 0))
    gossip.publish(IDLE)
    gossip.outgoing(0.0)
    return gossip


def told(out: Iterable[tuple[DeviceId, Record | Digest]]) -> list[DeviceId]:
    return [peer for peer, message in out if isinstance(message, Record)]


def test_what_is_known_is_not_verified_again() -> None:
    verified: list[Record] = []

    def count(peer: DeviceId, record: Record) -> Said | None:
        verified.append(record)
        return read(peer, record)

    gossip = Gossip(device(0), epoch=1, rng=Random(0), sign=sign, read=count)
    news = record(1, 1, 7, IDLE)
    assert gossip.receive(device(1), news, 0.0) is Heard.NEWS
    assert gossip.receive(device(2), news, 0.0) is Heard.KNOWN
    assert gossip.receive(device(2), record(1, 1, 6, BUSY), 0.0) is Heard.KNOWN
    assert len(verified) == 1


def test_a_later_epoch_counts_more_than_any_number() -> None:
    gossip = alone(1)
    gossip.receive(device(1), record(1, 1, 99, IDLE), 0.0)
    assert gossip.receive(device(1), record(1, 2, 1, BUSY), 1.0) is Heard.NEWS
    assert known(gossip, 1.0) == {device(1): BUSY}


def test_a_forged_record_changes_nothing_and_is_not_passed_on() -> None:
    gossip = alone(1, 2, 3)
    forged = replace(record(1, 1, 1, IDLE), member=device(9))
    assert gossip.receive(device(1), forged, 0.0) is Heard.FORGED
    assert not gossip.members(0.0)
    assert not told(gossip.outgoing(0.0))


def test_what_is_not_signed_is_not_passed_on() -> None:
    gossip = alone(1, 2, 3)
    bare = Record(device(1), 1, 1, encode_claim(BUSY))
    assert gossip.receive(device(1), bare, 0.0) is Heard.NEWS
    assert known(gossip, 0.0) == {device(1): BUSY}
    assert not told(gossip.outgoing(0.0))
    assert gossip.receive(device(2), replace(bare, seq=2), 0.0) is Heard.FORGED
    every = Digest(first=device(1), last=device(1), versions=(), is_answer=False)
    gossip.receive_digest(device(2), every, 1.0)
    assert not told(gossip.outgoing(1.0))


def test_news_are_not_told_to_where_they_came_from() -> None:
    gossip = alone(1, 2, 3, 4)
    gossip.receive(device(2), record(9, 1, 1, IDLE), 0.0)
    peers = told(gossip.outgoing(0.0))
    assert device(2) not in peers
    assert len(peers) == 3


def test_who_says_too_much_is_heard_later() -> None:
    gossip = alone(1)
    heard = [
        gossip.receive(device(1), record(1, 1, seq, IDLE), 0.0) for seq in range(1, 20)
    ]
    assert heard.count(Heard.TOO_MUCH) >= 10
    assert gossip.receive(device(1), record(1, 1, 50, BUSY), 1.0) is Heard.NEWS


def test_memory_is_bounded_and_the_longest_silent_make_room() -> None:
    gossip = Gossip(
        device(0), epoch=1, rng=Random(0), sign=sign, read=read, pace=Pace(members=10)
    )
    for number in range(1, 30):
        gossip.receive(device(1), record(number, 1, 1, IDLE), number / 10)
    assert len(gossip.members(3.0)) == 10
    assert device(29) in known(gossip, 3.0)
    assert device(1) not in known(gossip, 3.0)


def test_who_lost_its_state_jumps_above_what_neighbours_saw() -> None:
    gossip = alone()
    gossip.joined(device(1), 1.0, seen=(7, 3))
    [version] = [
        (message.epoch, message.seq)
        for _, message in gossip.outgoing(1.0)
        if isinstance(message, Record)
    ]
    assert version > (7, 3)


def test_our_own_record_of_a_later_epoch_makes_us_jump() -> None:
    gossip = alone(1)
    assert gossip.receive(device(1), record(0, 9, 4, BUSY), 1.0) is Heard.NEWS
    assert not gossip.members(1.0)
    assert gossip.epoch == 10
    assert told(gossip.outgoing(1.0)) == [device(1)]


def test_nobody_can_use_up_our_epochs() -> None:
    gossip = alone()
    gossip.joined(device(1), 1.0, seen=((1 << 63) - 1, 0))
    assert gossip.epoch == 5


def test_a_large_site_is_compared_part_by_part() -> None:
    gossip = alone(1)
    for number in range(1, 2000):
        gossip.receive(device(1), record(number, 1, 1, IDLE), 0.0)
    gossip.outgoing(0.0)
    seen: set[DeviceId] = set()
    for step in range(1, 60):
        for _, message in gossip.outgoing(5.0 * step if step < 25 else 125.0):
            if isinstance(message, Digest):
                assert len(message.versions) <= MAX_DIGEST_VERSIONS
                seen |= {version.member for version in message.versions}
    assert len(seen) > 1500


def test_changes_tell_what_is_new_once() -> None:
    gossip = alone(1)
    gossip.receive(device(1), record(1, 1, 1, BUSY, age=4), 10.0)
    assert gossip.changes(11.0) == [(device(1), Member(device(1), BUSY, 5.0))]
    assert gossip.changes(11.0) == []


def test_a_record_that_is_too_old_is_no_news() -> None:
    gossip = alone(1)
    old = record(1, 1, 1, IDLE, age=int(PACE.forget))
    assert gossip.receive(device(1), old, 0.0) is Heard.KNOWN


def test_what_is_not_urgent_is_said_when_we_speak_next() -> None:
    net = site(2)
    one, other = net.all.values()
    net.run(10)
    seq = one.seq
    one.publish(BUSY, is_urgent=False)
    net.run(1)
    assert one.seq == seq
    net.run(60)
    assert known(other, net.now)[one.me] == BUSY
    one.publish(IDLE, is_urgent=False)
    one.publish(IDLE)
    net.run(1)
    assert known(other, net.now)[one.me] == IDLE


def test_clocks_that_differ_by_hours_change_nothing() -> None:
    hours = 10 * 3600.0
    ahead, behind = (
        alone(2),
        Gossip(device(2), epoch=1, rng=Random(2), sign=sign, read=read),
    )
    behind.joined(device(0), 0.0, seen=(0, 0))
    ahead.publish(BUSY)
    [said] = [
        message for _, message in ahead.outgoing(hours) if isinstance(message, Record)
    ]
    assert behind.receive(device(0), said, 5.0) is Heard.NEWS
    [member] = behind.members(65.0)
    assert (member.claim, member.age) == (BUSY, 60.0)
    behind.outgoing(160.0)
    assert not behind.members(160.0)
