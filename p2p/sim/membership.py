"""A virtual device's part in the gossip of its site: the production code under it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import inf
from random import Random

from p2p.sim.network import Network
from p2p.sim.timeline import Timeline
from p2p.swarm import event as e
from p2p.swarm.gossip import Gossip, Heard, Said
from p2p.wire.limits import MAX_CLAIM_COMMITS
from p2p.wire.messages import DeviceId, Digest, Record
from p2p.wire.record import (
    Claim,
    CommitTag,
    Signed,
    decode_body,
    decode_claim,
    encode_body,
)

# Lengths of an Ed25519 key and signature; nobody here forges any.
_KEY = bytes(44)
_SIGNATURE = bytes(64)
# What comes within this is passed on together, as whoever reads a socket would.
_GATHER_SECONDS = 0.02


class Membership:
    """Carries records between the gossip and the network, and says what is new."""

    def __init__(
        self,
        me: DeviceId,
        *,
        network: Network,
        timeline: Timeline,
        seed: int,
        tell: Callable[[e.Event], None],
    ) -> None:
        """Know nobody; `tell` hears what members say."""
        rng = Random(seed)  # noqa: S311 - equal seeds shall give equal runs
        self.gossip = Gossip(me, epoch=1, rng=rng, sign=_sign, read=_read)
        self._me = me
        self._network = network
        self._timeline = timeline
        self._tell = tell
        self._claim = Claim()
        self._is_urgent = False
        self._complete: tuple[CommitTag, ...] = ()
        self._wake = inf
        self._is_gathering = False

    def joined(self, peer: DeviceId) -> None:
        """Take a session."""
        self.gossip.joined(peer, self._timeline.now, seen=(0, 0))
        self._act()

    def left(self, peer: DeviceId) -> None:
        """Take the end of one."""
        self.gossip.left(peer)

    def claim(self, claim: Claim, *, is_urgent: bool) -> None:
        """Say what the scheduler has to say."""
        self._claim = claim
        self._is_urgent = is_urgent
        self._publish()

    def complete(self, commits: tuple[CommitTag, ...]) -> None:
        """Say which commits are here."""
        self._complete = commits
        self._publish()

    def _publish(self) -> None:
        complete = tuple(dict.fromkeys((*self._claim.complete, *self._complete)))
        if not (self._claim.wants or complete or self.gossip.seq):
            return  # as an agent that has nothing to say yet
        claim = replace(self._claim, complete=complete[:MAX_CLAIM_COMMITS])
        self.gossip.publish(claim, is_urgent=self._is_urgent)
        self._act()

    def received(self, peer: DeviceId, message: Record | Digest) -> None:
        """Take what a neighbour says of members."""
        now = self._timeline.now
        if isinstance(message, Record):
            if self.gossip.receive(peer, message, now) is Heard.KNOWN:
                return
        else:
            self.gossip.receive_digest(peer, message, now)
        if not self._is_gathering:
            self._is_gathering = True
            self._timeline.after(_GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._is_gathering = False
        self._act()

    def _act(self) -> None:
        host = self._network.hosts.get(self._me)
        if host is None or host.is_silent or host.is_dead:
            return
        now = self._timeline.now
        for peer, message in self.gossip.outgoing(now):
            self._network.send(self._me, peer, message)
        at = self.gossip.next_timeout()
        if at < self._wake:
            self._wake = at
            self._timeline.at(at, self._timed_out, at)
        for who, member in self.gossip.changes(now):
            if member is None:
                self._tell(e.MemberGone(who))
            else:
                self._tell(e.MemberSaid(who, member.claim, member.age))

    def resumed(self) -> None:
        """Go on after a suspension."""
        self._act()

    def _timed_out(self, at: float) -> None:
        if at == self._wake:
            self._wake = inf
            self._act()


def _sign(_member: DeviceId, _epoch: int, _seq: int, claim: bytes) -> bytes:
    return encode_body(Signed(claim, _KEY, _SIGNATURE))


def _read(_peer: DeviceId, record: Record) -> Said:
    return _read_body(record.body)


@lru_cache(maxsize=1 << 14)
def _read_body(body: bytes) -> Said:
    # Every device of a site reads the same records.
    return Said(decode_claim(decode_body(body).claim), is_signed=True)
