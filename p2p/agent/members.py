"""What the members of this site say of themselves, heard and passed on by neighbours.

`Gossip` decides whom to tell what and when; here records are signed and verified, and
sent when it is time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum
from typing import Any

import nacl.exceptions
import nacl.signing
import trio

from p2p.errors import FormatError
from p2p.net.device_key import decode_public_key, encode_public_key
from p2p.swarm.gossip import Gossip, Heard, Member, Said
from p2p.wire import messages as m
from p2p.wire.limits import MAX_CLAIM_COMMITS
from p2p.wire.record import (
    Address,
    Claim,
    CommitTag,
    Signed,
    decode_body,
    decode_claim,
    encode_body,
    speaks_for,
    statement,
)

# When a site starts, nobody is in a hurry to hear where everybody is.
FIRST_SECONDS = 30.0
Hear = Callable[[m.DeviceId, Member | None], None]
"""Is told what a member says; None once nobody hears of it any more."""


class Worth(Enum):
    """What a message was worth."""

    FINE = "fine"
    USELESS = "useless"
    FORGED = "forged"


_WORTH = {
    Heard.NEWS: Worth.FINE,
    Heard.KNOWN: Worth.FINE,
    Heard.TOO_MUCH: Worth.USELESS,
}


class Members:
    """All members' records.

    Attributes:
        gossip: what decides.
        counts: what became of records that came, by short word.
        addresses: where this device takes sessions, for its own record.

    """

    def __init__(
        self,
        me: m.DeviceId,
        *,
        place: bytes,
        epoch: int,
        key: nacl.signing.SigningKey | None,
        send: Callable[[m.DeviceId, m.Record | m.Digest], None],
        keep_epoch: Callable[[int], Awaitable[None]],
    ) -> None:
        """Know nobody, and say nothing of ourselves yet.

        Args:
            me: this device.
            place: of this run of it in the ring of all instances.
            epoch: of this start.
            key: the device's, if it is an Ed25519 key; without it others can only
                hear of us from ourselves.
            send: says something to a neighbour.
            keep_epoch: has the next start begin above an epoch.

        """
        self.gossip = Gossip(
            me,
            epoch=epoch,
            rng=random.SystemRandom(),
            sign=self._sign,
            read=self._read,
            place=place,
        )
        self._key = key
        self._send = send
        self._keep_epoch = keep_epoch
        self._kept_epoch = epoch
        self._wake = trio.Event()
        self._hearing: list[Hear] = []
        self._claim = Claim()
        self._is_urgent = True
        self._complete: tuple[CommitTag, ...] = ()
        self._speak_at = 0.0
        self._due = 0.0
        self._fault = Worth.USELESS
        self._has_spoken = False
        self.addresses: tuple[Address, ...] = ()
        self.counts: Counter[str] = Counter()

    # -- signatures --------------------------------------------------------------------

    def _sign(self, member: m.DeviceId, epoch: int, seq: int, claim: bytes) -> bytes:
        if self._key is None:
            return encode_body(Signed(claim))
        said = statement(member, epoch, seq, claim)
        public = encode_public_key(self._key.verify_key)
        return encode_body(Signed(claim, public, self._key.sign(said).signature))

    def _read(self, peer: m.DeviceId, record: m.Record) -> Said | None:
        try:
            signed = decode_body(record.body)
            claim = decode_claim(signed.claim)
        except FormatError:
            # It may be another version's, so nobody is blamed.
            return None
        if not signed.key and record.member == peer:
            return Said(claim, is_signed=False)
        if not _is_genuine(record, signed):
            self._fault = Worth.FORGED
            return None
        return Said(claim, is_signed=True)

    # -- neighbours --------------------------------------------------------------------

    def joined(self, peer: m.DeviceId, hello: m.Hello) -> None:
        """Tell a neighbour, and be told by it, from now on."""
        seen = hello.seen_epoch, hello.seen_seq
        now = trio.current_time()
        self.gossip.joined(peer, now, seen=seen, place=hello.instance)
        self._act()

    def left(self, peer: m.DeviceId) -> None:
        """Note that its session ended."""
        self.gossip.left(peer)

    def receive(self, peer: m.DeviceId, message: m.Record | m.Digest) -> Worth:
        """Take what a neighbour says of members."""
        now = trio.current_time()
        if isinstance(message, m.Digest):
            self.gossip.receive_digest(peer, message, now)
            self._act()
            return Worth.FINE
        self._fault = Worth.USELESS
        heard = self.gossip.receive(peer, message, now)
        worth = self._fault if heard is Heard.FORGED else _WORTH[heard]
        self.counts[heard.name.lower() if worth is Worth.FINE else worth.value] += 1
        self._act()
        return worth

    # -- what is said and heard --------------------------------------------------------

    def say(self, claim: Claim, *, is_urgent: bool | None = None) -> None:
        """Say this of what we get and what we do at the origin.

        `is_urgent` tells whether others wait for it; None: if they did for the last.
        """
        self._claim = claim
        if is_urgent is not None:
            self._is_urgent = is_urgent
        self._publish()

    def holds(self, complete: tuple[CommitTag, ...]) -> None:
        """Say which commits are here."""
        self._complete = complete[:MAX_CLAIM_COMMITS]
        self._publish()

    def begin(self, seconds: float) -> None:
        """Say where we are, within a time, though there is nothing else to say."""
        self._speak_at = trio.current_time() + random.uniform(0, seconds)  # noqa: S311 - only spreads when members speak
        self._wake.set()

    def _publish(self) -> None:
        is_time = trio.current_time() >= self._speak_at > 0
        if self._claim.wants or is_time or self._has_spoken:
            self._has_spoken = True
            # What was just fetched is said to be here before it is published.
            here = dict.fromkeys((*self._claim.complete, *self._complete))
            claim = replace(
                self._claim,
                addresses=self.addresses,
                complete=tuple(here)[:MAX_CLAIM_COMMITS],
            )
            self.gossip.publish(claim, is_urgent=self._is_urgent)
            self._act()

    def subscribe(self, hear: Hear) -> None:
        """Have `hear` called with each member that says something, or is gone."""
        self._hearing.append(hear)

    def all(self) -> list[Member]:
        """Return all members but ourselves."""
        return self.gossip.members(trio.current_time())

    def describe(self) -> list[dict[str, Any]]:
        """Return all members that say something of themselves, as JSON values."""
        return [
            {
                "device": member.id,
                "addresses": [f"{a.host}:{a.port}" for a in member.claim.addresses],
                "wants": len(member.claim.wants),
                "complete": len(member.claim.complete),
                "origin": member.claim.origin.name.lower(),
                "seconds": round(member.age, 1),
            }
            for member in self.all()
        ]

    # -- time --------------------------------------------------------------------------

    def _act(self) -> None:
        now = trio.current_time()
        for peer, message in self.gossip.outgoing(now):
            self._send(peer, message)
        for who, member in self.gossip.changes(now):
            if who != self.gossip.me:
                for hear in self._hearing:
                    hear(who, member)
        if self.gossip.next_timeout() < self._due:
            self._wake.set()

    async def run(self) -> None:
        """Say things when it is time, until cancelled."""
        while True:
            self._publish()
            self._act()
            self._wake = trio.Event()
            if self.gossip.epoch > self._kept_epoch:
                self._kept_epoch = self.gossip.epoch
                await self._keep_epoch(self._kept_epoch)
            self._due = self.gossip.next_timeout()
            if self._speak_at > trio.current_time():
                self._due = min(self._due, self._speak_at)
            with trio.move_on_at(self._due):
                await self._wake.wait()


def _is_genuine(record: m.Record, signed: Signed) -> bool:
    """Tell whether the member itself signed its record."""
    key = decode_public_key(signed.key)
    if key is None or not speaks_for(signed.key, record.member):
        return False
    said = statement(record.member, record.epoch, record.seq, signed.claim)
    try:
        key.verify(said, signed.signature)
    except (nacl.exceptions.BadSignatureError, ValueError):
        return False
    return True
