"""Everything that is wanted, numbered, and in which state each of it is.

Objects and units of large objects share one numbering ("items"), so that any set of
them is one integer (see `bits`). Objects found together are numbered in random
order: neighbouring numbers then have nothing to do with each other, and picking a
run of them is picking at random.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.swarm.bits import each, less, pack, span
from p2p.swarm.lifecycle import LIFECYCLE, State, Step
from p2p.swarm.tuning import Tuning
from p2p.wire.record import Lease, object_lease

if TYPE_CHECKING:
    from random import Random

# Before any size is known: a usual dirtree, and the mean of a Debian tree's files.
_METADATA_BYTES = 512
_CONTENT_BYTES = 24 << 10
# 151 is odd, so that the units of one object visit all 256 buckets.
_UNIT_STRIDE = 151


class Catalogue:
    """The items; all sets are integers over their numbers.

    Attributes:
        names: the object of each item.
        sizes: bytes of each item, 0 while unknown; hints unless in `signed`.
        metadata, large, units, signed: items of that kind; `large` are objects that
            a batch cannot carry, as far as we know.
        sized: those of `large` whose size is signed.
        members: the objects and units of each wanted commit.
        buckets: the objects by the first byte of their checksums.
        opened: grows whenever something becomes open.

    """

    def __init__(self, tuning: Tuning, rng: Random) -> None:
        self.names: list[ObjectName] = []
        self.sizes: list[int] = []
        self.keys = bytearray()
        self.metadata = self.large = self.units = 0
        self.signed = self.sized = 0
        self.members: dict[Checksum, int] = {}
        self.buckets = [0] * 256
        self.opened = 0
        self._tuning = tuning
        self._rng = rng
        self._in = [0] * len(State)
        self._index: dict[ObjectName, int] = {}
        self._leases: dict[Lease, int] = {}
        self._unwanted = 0
        self._signed_sizes: dict[ObjectName, int] = {}
        self._typical_bytes = float(_CONTENT_BYTES)
        self._unit_firsts: list[int] = []
        self._unit_objects: list[int] = []

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        counts = (f"{bits.bit_count()} {State(k).name}" for k, bits in self._items())
        return f"<Catalogue {', '.join(counts)}>"

    def _items(self) -> list[tuple[int, int]]:
        return [(k, bits) for k, bits in enumerate(self._in) if bits]

    # -- states --------------------------------------------------------------------

    def having(self, *states: State) -> int:
        """Return the items in any of these states."""
        bits = 0
        for state in states:
            bits |= self._in[state]
        return bits

    def shift(self, step: Step, bits: int) -> int:
        """Move those of the items that the step applies to, and return them."""
        sources, target = LIFECYCLE[step]
        moved = 0
        for source in sources:
            part = bits & self._in[source]
            if part:
                self._in[source] ^= part
                moved |= part
        self._in[target] |= moved
        if moved and target is State.OPEN:
            self.opened += 1
            if self._unwanted:
                self.shift(Step.FORGET, moved & self._unwanted)
        return moved

    # -- objects -------------------------------------------------------------------

    def find(self, name: ObjectName) -> int | None:
        """Return the item of an object, None if it was never wanted."""
        return self._index.get(name)

    def find_lease(self, lease: Lease) -> int | None:
        """Return the item of an object by its lease, None if it was never wanted."""
        return self._leases.get(lease)

    def find_all(self, names: Iterable[ObjectName]) -> list[int]:
        """Return the items of those objects that were ever wanted."""
        get = self._index.get
        return [item for name in names if (item := get(name)) is not None]

    def want(self, commit: Checksum, names: Sequence[ObjectName]) -> int:
        """Note that a commit needs these; return the items that are new to it."""
        known = pack(self.find_all(names))
        self._unwanted = less(self._unwanted, known)
        self.shift(Step.REMEMBER, known)
        index = self._index
        # A dictionary, because a name may be given twice.
        fresh = list(dict.fromkeys(name for name in names if name not in index))
        self._rng.shuffle(fresh)
        added = self._add(fresh)
        bits = less(known | added, self.members.get(commit, 0))
        self.members[commit] = self.members.get(commit, 0) | bits
        return bits

    def _add(self, fresh: list[ObjectName]) -> int:
        first = len(self.names)
        metadata: list[int] = []
        buckets: dict[int, list[int]] = {}
        for item, name in enumerate(fresh, first):
            self._index[name] = item
            self._leases[object_lease(name.checksum)] = item
            if name.type is not ObjectType.FILE:
                metadata.append(item)
            key = int(name.checksum[:2], 16)
            self.keys.append(key)
            buckets.setdefault(key, []).append(item)
        self.names += fresh
        self.sizes += [0] * len(fresh)
        self.metadata |= pack(metadata)
        for key, items in buckets.items():
            self.buckets[key] |= pack(items)
        added = span(first, len(fresh))
        self._in[State.OPEN] |= added
        self.opened += bool(fresh)
        if self._signed_sizes:
            self._apply_signed(fresh)
        return added

    def unwant(self, commit: Checksum) -> int:
        """Forget a commit; return the items that no other commit needs."""
        gone = self.members.pop(commit, 0)
        for bits in self.members.values():
            gone = less(gone, bits)
        self._unwanted |= gone
        self.shift(Step.FORGET, gone)
        return gone

    @property
    def known(self) -> int:
        """The objects and units that some commit needs."""
        bits = 0
        for members in self.members.values():
            bits |= members
        return bits

    # -- sizes ---------------------------------------------------------------------

    def sign_sizes(self, sizes: Iterable[tuple[ObjectName, int]]) -> None:
        """Take sizes the publisher signed, also of objects not wanted yet."""
        fresh = dict(sizes)
        self._signed_sizes |= fresh
        self._apply_signed(fresh)

    def _apply_signed(self, names: Iterable[ObjectName]) -> None:
        items: list[int] = []
        for name in names:
            size = self._signed_sizes.get(name)
            item = self._index.get(name)
            if size is not None and item is not None:
                items.append(item)
                self.sizes[item] = size
        self.signed |= pack(items)
        big = (item for item in items if self.sizes[item] > self._tuning.large_bytes)
        large = pack(big)
        self.large |= large
        self.sized |= large

    def hint_size(self, item: int, size: int) -> None:
        """Take a size that somebody claims; a signed one stays."""
        if self.signed >> item & 1:
            return
        self.sizes[item] = size
        if size > self._tuning.large_bytes:
            self.mark_large(item)
        elif self.large >> item & 1:
            self.large ^= 1 << item
            self.opened += 1

    def forget_sizes(self, bits: int) -> None:
        """Forget what was claimed of these; what is signed stays."""
        bits = less(bits, self.signed | self.units)
        for item in each(bits):
            self.sizes[item] = 0
        if self.large & bits:
            self.large = less(self.large, bits)
            self.opened += 1

    def mark_large(self, item: int) -> None:
        """Note that an object is too large for a batch; a signed size stays."""
        if self.signed >> item & 1:
            return
        self.large |= 1 << item
        self.opened += 1

    def learn_size(self, item: int, size: int) -> None:
        """Take the size of an object that arrived."""
        self.sizes[item] = size
        if size <= self._tuning.large_bytes and not self.metadata >> item & 1:
            self._typical_bytes += (size - self._typical_bytes) / 32

    def expect_bytes(self, item: int) -> int:
        """Return the size of an item, a guess while it is unknown."""
        size = self.sizes[item]
        if size:
            return size
        if self.metadata >> item & 1:
            return _METADATA_BYTES
        return int(self._typical_bytes)

    def expect_sum(self, bits: int) -> int:
        """Return about how many bytes so many objects have together."""
        large = bits & self.large
        content = less(bits, self.metadata | large).bit_count()
        size = sum(self.sizes[item] for item in each(large))
        return size + int(content * self._typical_bytes)

    # -- units ---------------------------------------------------------------------

    @property
    def unit_count(self) -> int:
        """How many units were ever numbered."""
        return len(self.names) - len(self._index)

    def add_units(self, item: int, size: int) -> tuple[int, int]:
        """Number the units of a large object; return the first item and the count.

        They are hidden until their hashes are known.
        """
        unit = self._tuning.unit_bytes
        count = -(-size // unit)
        first = len(self.names)
        self.names += [self.names[item]] * count
        self.sizes += [unit] * (count - 1) + [size - unit * (count - 1)]
        key = self.keys[item]
        self.keys += bytes((key + _UNIT_STRIDE * k) & 255 for k in range(count))
        bits = span(first, count)
        self.units |= bits
        self._in[State.HIDDEN] |= bits
        for commit, members in self.members.items():
            if members >> item & 1:
                self.members[commit] = members | bits
        self._unit_firsts.append(first)
        self._unit_objects.append(item)
        return first, count

    def object_of(self, unit: int) -> int:
        """Return the item of the object that this item is a unit of."""
        return self._unit_objects[bisect_right(self._unit_firsts, unit) - 1]

    # -- choosing by key -----------------------------------------------------------

    def select(self, chosen: bytes) -> int:
        """Return the items whose key's entry in a table of 256 is b"1", else b"0"."""
        if not self.keys:
            return 0
        return int(self.keys.translate(chosen)[::-1], 2)

    def names_of(self, bits: int) -> tuple[ObjectName, ...]:
        """Return the objects of these items."""
        return tuple(self.names[item] for item in each(bits))
