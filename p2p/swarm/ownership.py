"""Who fetches what from the origin: rendezvous hashing over the members of a site.

Each device ranks all members for each shard by a hash of the two; the first owns the
shard. A shard is a bucket of objects (by the first byte of the checksum), or one
object that the publisher signed to be large. It does not depend on the commit, so
that devices which want different commits share what is common; a member that wants
another commit than ours may not want an object, so nobody waits for it.

A device takes its own shards first, in the order of its own score. Then what somebody
else might take, against the order in which its owner goes, so that two devices meet
but once. Equal views give one owner; different views cost duplicates, never a gap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

from p2p.ostree.objects import Checksum, raw
from p2p.swarm.bits import each, less
from p2p.swarm.membership import Member
from p2p.swarm.neighbour import Neighbour
from p2p.swarm.site import Site
from p2p.wire.messages import DeviceId
from p2p.wire.record import commit_tag

_SCORES = Struct(">256Q")


@lru_cache(maxsize=4096)
def bucket_scores(device: DeviceId) -> tuple[int, ...]:
    """Return a device's score for each of the 256 buckets."""
    stream = hashlib.shake_256(bytes.fromhex(device))
    return _SCORES.unpack(stream.digest(_SCORES.size))


def object_score(device: DeviceId, checksum: Checksum) -> int:
    """Return a device's score for an object that is a shard of its own."""
    key = bytes.fromhex(device) + raw(checksum)
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class Shard:
    """What is owned together, and who comes before us.

    Attributes:
        bucket: its number, or -1 for an object of its own.
        item: that object, or -1.
        mine: our score.
        above: the scores of those who come before us, the owner's first.
        claimed: those of our commits whose objects one of them wants.

    """

    bucket: int
    item: int
    mine: int
    above: tuple[int, ...]
    claimed: tuple[Checksum, ...]

    def own_order(self) -> tuple[bool, bool, int]:
        """Sort what we take unasked: ours, large objects first as they take long."""
        against = self.above[0] if self.above else -self.mine
        return bool(self.above), self.bucket >= 0, against

    def late_order(self) -> tuple[int, int]:
        """Sort what we take from others: the fewer come before us the earlier."""
        return len(self.above), self.above[0] if self.above else 0


class Ownership:
    """Our shards and everybody else's, in the order in which we take them.

    Attributes:
        own: shards with objects that nobody above us is known to want.
        late: all shards, for a device that lost patience.
        is_shared: whether somebody else takes from our neighbours too.

    """

    def __init__(self, site: Site) -> None:
        self.own: list[Shard] = []
        self.late: list[Shard] = []
        self.is_shared = False
        self._site = site
        self._checked = (-1, 0, 0)
        self._seen: object = None
        self._singles = 0
        self._mine = b"1" * 256
        self._preferred = (-1, 0)

    def __repr__(self) -> str:
        return f"<Ownership {len(self.own)} of {len(self.late)} shards>"

    def refresh(self) -> bool:
        """Rank anew if members, commits or large objects changed; tell whether."""
        site = self._site
        catalogue = site.catalogue
        checked = (site.membership, site.members.version, catalogue.sized)
        if checked == self._checked:
            return False
        self._checked = checked
        commits = tuple(catalogue.members)
        takers = tuple((taker.id, taker.wants()) for taker in site.takers())
        fetchers = tuple((one.id, one.wants) for one in site.fetchers())
        seen = (takers, fetchers, catalogue.sized, commits)
        if seen == self._seen:
            return False
        self._seen = seen
        self._singles = self._large_objects(catalogue.sized)
        shards = list(self._rank(site.fetchers(), commits))
        own = (shard for shard in shards if len(shard.claimed) < len(commits))
        self.own = sorted(own, key=Shard.own_order)
        self.late = sorted(shards, key=Shard.late_order)
        self._prefer(site.takers())
        return True

    def _prefer(self, takers: list[Neighbour]) -> None:
        owners = share_evenly((*(taker.id for taker in takers), self._site.me))
        self._mine = bytes(ord("0") + (owner == len(takers)) for owner in owners)
        self._preferred = (-1, 0)
        self.is_shared = bool(takers)

    def _rank(
        self, members: list[Member], commits: tuple[Checksum, ...]
    ) -> Iterable[Shard]:
        me = self._site.me
        tags = {commit_tag(commit): commit for commit in commits}
        wants = [
            tuple(tags[tag] for tag in member.wants if tag in tags)
            for member in members
        ]
        wants.append(commits)
        ids = (*(member.id for member in members), me)
        tables = [bucket_scores(device) for device in ids]
        for bucket, owner in enumerate(share_evenly(ids)):
            scores = [table[bucket] for table in tables]
            yield _shard((bucket, -1), owner, scores, wants)
        for item in each(self._singles):
            checksum = self._site.name(item).checksum
            scores = [object_score(device, checksum) for device in ids]
            yield _shard((-1, item), scores.index(max(scores)), scores, wants)

    def _large_objects(self, sized: int) -> int:
        sizes = self._site.catalogue.sizes
        bound = self._site.tuning.own_lease_bytes
        bits = 0
        for item in each(sized):
            if sizes[item] > bound:
                bits |= 1 << item
        return bits

    @property
    def preferred(self) -> int:
        """The items, units too, whose bucket has nobody above us.

        Asked of a sole holder first, they leave it about once.
        """
        count = len(self._site.catalogue)
        if self._preferred[0] != count:
            self._preferred = (count, self._site.catalogue.select(self._mine))
        return self._preferred[1]

    def items(self, shard: Shard) -> int:
        """Return all objects of a shard."""
        if shard.item >= 0:
            return 1 << shard.item
        return less(self._site.catalogue.buckets[shard.bucket], self._singles)

    def unclaimed(self, shard: Shard) -> int:
        """Return the objects of a shard that nobody above us is known to want."""
        bits = self.items(shard)
        for commit in shard.claimed:
            bits = less(bits, self._site.catalogue.members.get(commit, 0))
        return bits

    def is_single(self, item: int) -> bool:
        """Tell whether an object is a shard of its own."""
        return bool(self._singles >> item & 1)


@lru_cache(maxsize=64)
def share_evenly(devices: tuple[DeviceId, ...]) -> tuple[int, ...]:
    """Return the owner of each bucket, as an index into the devices.

    The best pair of bucket and member first, but no member gets more than its part:
    by highest score alone, parts of 32 buckets would differ by 5 or 6, and who is
    through first would ask for what is somebody else's.
    """
    room = [-(-256 // len(devices))] * len(devices)
    owners = [-1] * 256
    pairs = sorted(
        (-score, bucket, member)
        for member, device in enumerate(devices)
        for bucket, score in enumerate(bucket_scores(device))
    )
    for _, bucket, member in pairs:
        if owners[bucket] < 0 and room[member]:
            owners[bucket] = member
            room[member] -= 1
    return tuple(owners)


def _shard(
    key: tuple[int, int],
    owner: int,
    scores: list[int],
    wants: list[tuple[Checksum, ...]],
) -> Shard:
    """Make a shard from all members' scores and wants; ours are the last."""
    mine = scores[-1]
    above = [
        k
        for k, score in enumerate(scores[:-1])
        if owner != len(scores) - 1 and (k == owner or score > mine)
    ]
    theirs = {commit for k in above for commit in wants[k]}
    claimed = tuple(commit for commit in wants[-1] if commit in theirs)
    order = [scores[owner]] + [scores[k] for k in above if k != owner]
    return Shard(*key, mine, tuple(order) if above else (), claimed)
