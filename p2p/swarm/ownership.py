"""Who fetches what from the origin: rendezvous hashing over the members of a site.

Of all that get a commit a few, its *committee*, use the origin: the first by a hash of
commit and device. For each shard the committee is ranked by another hash; the first
owns the shard. A shard is a bucket of objects (by the first byte of the checksum), or
one object that the publisher signed to be large. It does not depend on the commit, so
that devices which want different commits share what is common; a member that wants
another commit than ours may not want an object, so nobody waits for it.

A device takes its own shards first, in the order of its own score. Then what a member
leaves that fell silent, the next in rank against the order in which the owner went: it
may only be cut off, and then the two meet but once. That is also how what somebody else
may take is taken. Equal views give one owner; different views cost duplicates, never a
gap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from p2p.ostree.objects import Checksum, raw
from p2p.swarm.bits import each, less
from p2p.swarm.site import Site
from p2p.wire.messages import DeviceId
from p2p.wire.record import CommitTag, commit_tag

_SCORES = Struct(">256Q")


@lru_cache(maxsize=4096)
def bucket_scores(device: DeviceId) -> tuple[int, ...]:
    """Return a device's score for each of the 256 buckets."""
    stream = hashlib.shake_256(bytes.fromhex(device))
    return _SCORES.unpack(stream.digest(_SCORES.size))


def object_score(device: DeviceId, checksum: Checksum) -> int:
    """Return a device's score for an object that is a shard of its own."""
    return _score(bytes.fromhex(device) + raw(checksum))


@lru_cache(maxsize=16384)
def rank(commit: CommitTag, device: DeviceId) -> int:
    """Return a device's place for a commit: the least are its committee."""
    return _score(commit + bytes.fromhex(device))


def _score(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


class Fetcher(NamedTuple):
    """Somebody who may fetch from the origin, ourselves too.

    Attributes:
        wants: the commits it gets.
        is_live: whether it is counted on.
        has: the commits that it got.

    """

    id: DeviceId
    wants: tuple[CommitTag, ...]
    is_live: bool
    has: tuple[CommitTag, ...] = ()


def choose_committee(candidates: Sequence[Fetcher], size: int) -> list[Fetcher]:
    """Return who uses the origin: for each commit so many that are counted on.

    Who is not counted on keeps its place, because it may come back; and who is through,
    because nobody needs to fetch again what it brought.
    """
    commits = dict.fromkeys(commit for one in candidates for commit in one.wants)
    chosen: dict[DeviceId, Fetcher] = {}
    for commit in sorted(commits):
        takers = [one for one in candidates if commit in (*one.wants, *one.has)]
        takers.sort(key=lambda one: rank(commit, one.id))
        left = size
        for one in takers:
            if not left:
                break
            chosen[one.id] = one
            left -= one.is_live
    return [chosen[id_] for id_ in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class Shard:
    """What is owned together, and who comes before us.

    Attributes:
        bucket: its number, or -1 for an object of its own.
        item: that object, or -1.
        mine: our score.
        owner: the score of who owns it.
        owner_id: who that is.
        above: how many come before us and are counted on.
        is_orphan: whether its owner is not counted on.
        claimed: those of our commits whose objects one of those before us wants.

    """

    bucket: int
    item: int
    mine: int
    owner: int
    owner_id: DeviceId
    above: int
    is_orphan: bool
    claimed: tuple[Checksum, ...]

    def own_order(self) -> tuple[bool, bool, bool, int]:
        """Sort what we take unasked: ours, large objects first as they take long."""
        is_others = self.above > 0 or self.is_orphan
        is_late = (self.bucket >= 0) is not self.is_orphan
        against = self.owner if is_others else -self.mine
        return self.above > 0, self.is_orphan, is_late, against

    def late_order(self) -> tuple[int, int]:
        """Sort what we take from others: the fewer come before us the earlier."""
        return self.above, self.owner


class Ownership:
    """Our shards and everybody else's, in the order in which we take them.

    They are worked out when they are asked for: while neighbours have everything nobody
    asks, however often members come and go.

    Attributes:
        is_member: whether we are of a committee.
        place: if not, how many come before us that are not either.

    """

    def __init__(self, site: Site) -> None:
        self.is_member = True
        self.place = 0
        self._site = site
        self._checked = (-1, 0, 0)
        self._seen: object = None
        self._ranked: tuple[list[Fetcher], tuple[Checksum, ...], int] = ([], (), 0)
        self._is_ranked = True
        self._own: list[Shard] = []
        self._late: list[Shard] = []
        self._singles = 0
        self._owned: dict[DeviceId, int] = {}
        self._owned_size = -1

    def __repr__(self) -> str:
        return f"<Ownership {len(self._own)} of {len(self._late)} shards>"

    @property
    def lateness(self) -> float:
        """How late we come among all devices, from 0 to 1, for our first commit."""
        commits = self._site.catalogue.members
        first = next(iter(commits), None)
        return rank(commit_tag(first), self._site.me) / 2**64 if first else 0.0

    @property
    def own(self) -> list[Shard]:
        """Shards with objects that nobody above us is known to want."""
        self._rank_all()
        return self._own

    @property
    def late(self) -> list[Shard]:
        """All shards, for a device that lost patience."""
        self._rank_all()
        return self._late

    def refresh(self) -> bool:
        """Take note if members, commits or large objects changed; tell whether."""
        site = self._site
        catalogue = site.catalogue
        checked = (site.membership, site.members.version, catalogue.sized)
        if checked == self._checked:
            return False
        self._checked = checked
        commits = tuple(catalogue.members)
        candidates = self._candidates(commits)
        seen = (candidates, catalogue.sized, commits)
        if seen == self._seen:
            return False
        self._seen = seen
        self._singles = self._large_objects(catalogue.sized)
        committee = choose_committee(candidates, site.tuning.committee)
        self._find_place(candidates, committee)
        ranked = (committee, commits, self._singles)
        if ranked == self._ranked:
            return False
        self._ranked = ranked
        self._is_ranked = False
        self._owned_size = -1
        return True

    def _rank_all(self) -> None:
        if self._is_ranked:
            return
        self._is_ranked = True
        committee, commits, _ = self._ranked
        shards = list(self._rank(committee, commits))
        own = (shard for shard in shards if len(shard.claimed) < len(commits))
        self._own = sorted(own, key=Shard.own_order) if self.is_member else []
        self._late = sorted(shards, key=Shard.late_order)

    def _candidates(self, commits: tuple[Checksum, ...]) -> tuple[Fetcher, ...]:
        """Return everybody who may fetch, ourselves last."""
        site = self._site
        others = [
            Fetcher(
                member.id,
                member.wants if member.may_fetch else (),
                site.is_counted_on(member),
                member.complete,
            )
            for member in site.members.candidates()
        ]
        ours = tuple(map(commit_tag, commits))
        return (*others, Fetcher(site.me, ours, is_live=True))

    def _find_place(
        self, candidates: Sequence[Fetcher], committee: Sequence[Fetcher]
    ) -> None:
        me = candidates[-1]
        chosen = {one.id for one in committee}
        self.is_member = me.id in chosen
        first = me.wants[0] if me.wants else None
        self.place = 0
        if first is None or self.is_member:
            return
        mine = rank(first, me.id)
        for one in candidates:
            is_before = first in one.wants and rank(first, one.id) < mine
            self.place += is_before and one.is_live and one.id not in chosen

    def _rank(
        self, committee: list[Fetcher], commits: tuple[Checksum, ...]
    ) -> Iterable[Shard]:
        """Return all shards; who is of no committee comes last everywhere."""
        me = self._site.me
        others = [one for one in committee if one.id != me]
        ids = tuple(one.id for one in others)
        tags = {commit_tag(commit): commit for commit in commits}
        wants = [
            tuple(tags[tag] for tag in (*one.wants, *one.has) if tag in tags)
            for one in others
        ]
        live = [one.is_live for one in others]
        ranking = _Ranking(ids, me, live, wants, commits, is_member=self.is_member)
        tables = [bucket_scores(device) for device in ids]
        mine = bucket_scores(me)
        sharing = (*ids, me) if self.is_member or not ids else ids
        for bucket, owner in enumerate(share_evenly(sharing)):
            scores = [table[bucket] for table in tables]
            yield ranking.shard((bucket, -1), owner, scores, mine[bucket])
        for item in each(self._singles):
            checksum = self._site.name(item).checksum
            scores = [object_score(device, checksum) for device in ids]
            our = object_score(me, checksum)
            all_ = [*scores, our] if self.is_member or not ids else scores
            owner = all_.index(max(all_))
            yield ranking.shard((-1, item), owner, scores, our)

    def _large_objects(self, sized: int) -> int:
        sizes = self._site.catalogue.sizes
        bound = self._site.tuning.own_lease_bytes
        bits = 0
        for item in each(sized):
            if sizes[item] > bound:
                bits |= 1 << item
        return bits

    def owned_by(self, device: DeviceId) -> int:
        """Return the objects of the shards that a device owns."""
        size = len(self._site.catalogue)
        if self._owned_size != size:
            self._owned_size = size
            self._owned = {}
            for shard in self.late:
                owned = self._owned.get(shard.owner_id, 0)
                self._owned[shard.owner_id] = owned | self.items(shard)
        return self._owned.get(device, 0)

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
    left = 256
    scores = [score for device in devices for score in bucket_scores(device)]
    for pair in sorted(range(len(scores)), key=scores.__getitem__, reverse=True):
        member, bucket = divmod(pair, 256)
        if owners[bucket] < 0 and room[member]:
            owners[bucket] = member
            room[member] -= 1
            left -= 1
            if not left:
                break
    return tuple(owners)


class _Ranking(NamedTuple):
    """What is the same for all shards: the others, and our commits."""

    ids: tuple[DeviceId, ...]
    me: DeviceId
    live: list[bool]
    wants: list[tuple[Checksum, ...]]
    commits: tuple[Checksum, ...]
    is_member: bool

    def shard(
        self, key: tuple[int, int], owner: int, scores: list[int], mine: int
    ) -> Shard:
        """Make a shard; an owner behind the others is ourselves."""
        is_ours = owner == len(scores)
        before = [
            k
            for k, score in enumerate(scores)
            if not is_ours and (k == owner or score > mine or not self.is_member)
        ]
        above = [k for k in before if self.live[k]]
        theirs = {commit for k in above for commit in self.wants[k]}
        return Shard(
            bucket=key[0],
            item=key[1],
            mine=mine,
            owner=mine if is_ours else scores[owner],
            owner_id=self.me if is_ours else self.ids[owner],
            above=len(above),
            is_orphan=not is_ours and not self.live[owner],
            claimed=tuple(commit for commit in self.commits if commit in theirs),
        )
