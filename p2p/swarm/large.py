"""Large objects: cut into units, each checked against a list of hashes.

Theory of operation: a neighbour that has a large object, or part of it, gives the
list of its units' hashes, signed by whoever made it. From then on the units are
asked of whoever has them, and passed on before the object is complete. If a unit is
not what the list says, either the giver lies or the list does: the giver is not asked
for this object again, and the blame is kept until the object's own checksum decides.
If it is right, the list was, and those givers are dropped. If it is wrong although
every unit agreed with the list, its author is dropped and they are forgiven. A list
that nobody alive can fulfil is given up without blame.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2p.swarm.action import Assemble, Blame, DiscardUnits
from p2p.swarm.bits import less, span
from p2p.swarm.event import HashesDelivered
from p2p.swarm.lifecycle import State, Step
from p2p.swarm.neighbour import Neighbour
from p2p.swarm.site import Site
from p2p.wire.messages import DeviceId


@dataclass(slots=True, eq=False)
class Split:
    """A large object under way.

    Attributes:
        item: the object.
        first, count: its units' items.
        listed: how many of them have hashes yet.
        author: who signed the hashes; None if the publisher did.
        struck: who gave a unit that disagrees with them.

    """

    item: int
    size: int
    first: int
    count: int
    author: DeviceId | None
    listed: int = 0
    struck: dict[DeviceId, None] = field(default_factory=dict)

    @property
    def bits(self) -> int:
        """All units."""
        return span(self.first, self.count)

    @property
    def listed_bits(self) -> int:
        """The units whose hashes are known."""
        return span(self.first, self.listed)


class Splits:
    """All large objects under way.

    Attributes:
        paging: objects of whose hashes a page is missing.

    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._open: dict[int, Split] = {}
        self._doubted: dict[int, dict[DeviceId | None, None]] = {}
        self.paging = 0

    def __repr__(self) -> str:
        return f"<Splits {len(self._open)} large objects under way>"

    def get(self, item: int) -> Split | None:
        """Return the split of an object, None if it is not cut."""
        return self._open.get(item)

    def of_unit(self, unit: int) -> Split | None:
        """Return the split that a unit belongs to, None if it was given up."""
        split = self._open.get(self._site.catalogue.object_of(unit))
        if split is None or not 0 <= unit - split.first < split.count:
            return None
        return split

    def units_of(self, objects: int) -> int:
        """Return all units of those of the objects that are cut."""
        bits = 0
        for item, split in self._open.items():
            if objects >> item & 1:
                bits |= split.bits
        return bits

    # -- hashes --------------------------------------------------------------------

    def take_hashes(self, item: int, page: HashesDelivered) -> bool:
        """Take a page of hashes; False if it does not serve."""
        if page.author in self._site.banned:
            return False
        if page.author in self._doubted.get(item, ()):
            return False
        split = self._open.get(item)
        if split is None:
            split = self._cut(item, page)
        if split is None or not self._fits(split, page):
            return False
        self._site.catalogue.shift(
            Step.SHOW, span(split.first + split.listed, page.count)
        )
        split.listed += page.count
        self.expect_page(item)
        return True

    def _fits(self, split: Split, page: HashesDelivered) -> bool:
        return (
            page.author == split.author
            and page.size == split.size
            and page.first == split.listed
            and 0 < page.count <= split.count - split.listed
        )

    def _cut(self, item: int, page: HashesDelivered) -> Split | None:
        site = self._site
        tuning = site.tuning
        catalogue = site.catalogue
        count = -(-page.size // tuning.unit_bytes)
        if catalogue.signed >> item & 1 and page.size != catalogue.sizes[item]:
            return None
        if page.size <= tuning.large_bytes:
            catalogue.hint_size(item, page.size)
            return None
        if page.first or count > tuning.max_units:
            return None
        if len(catalogue) + count > tuning.max_items:
            return None
        if not catalogue.shift(Step.SPLIT, 1 << item):
            return None
        catalogue.hint_size(item, page.size)
        first, count = catalogue.add_units(item, page.size)
        split = Split(item, page.size, first, count, page.author)
        self._open[item] = split
        for neighbour in site.neighbours.values():
            if neighbour.announced >> item & 1:
                neighbour.announce(split.bits)
            early = neighbour.early.pop(item, 0)
            neighbour.announce((early & span(0, count)) << first)
        site.imply_all()
        site.counted = -1.0
        return split

    def expect_page(self, item: int) -> None:
        """Note whether a page of hashes is missing and not asked for."""
        split = self._open.get(item)
        if split is not None and split.listed < split.count:
            self.paging |= 1 << item
            self._site.catalogue.opened += 1
        else:
            self.paging = less(self.paging, 1 << item)

    # -- units ---------------------------------------------------------------------

    def check_complete(self, split: Split) -> None:
        """Have the object assembled if all its units are here."""
        catalogue = self._site.catalogue
        if less(split.bits, catalogue.having(State.DONE)):
            return
        # The origin may be sending it at the same time.
        catalogue.shift(Step.RESUME, 1 << split.item & catalogue.having(State.FETCHING))
        if catalogue.shift(Step.JOIN, 1 << split.item):
            self._site.settle(split.item, from_origin=False)
            self._site.emit(Assemble(self._site.name(split.item)))

    def strike(self, split: Split, neighbour: Neighbour) -> None:
        """Note that a neighbour gave a unit that disagrees with the list."""
        split.struck[neighbour.id] = None
        neighbour.deny(split.bits | 1 << split.item)

    def orphans(self, held: int) -> int:
        """Return the large objects of which no neighbour has some open unit."""
        catalogue = self._site.catalogue
        lost = less(catalogue.having(State.OPEN) & catalogue.units, held)
        bits = 0
        while lost:
            unit = (lost & -lost).bit_length() - 1
            split = self._open[catalogue.object_of(unit)]
            bits |= 1 << split.item
            lost = less(lost, split.bits)
        if self.paging:
            lists = 0
            for neighbour in self._site.neighbours.values():
                lists |= neighbour.lists
            bits |= less(self.paging, held | lists)
        return bits & catalogue.having(State.SPLIT)

    def give_up_doubtful(self, now: float) -> None:
        """Give up lists that somebody contradicted and nobody alive fulfils."""
        site = self._site
        contested = [split for split in self._open.values() if split.struck]
        if not contested:
            return
        held = site.held_by_others(now)
        for split in contested:
            lost = less(split.bits & site.catalogue.having(State.OPEN), held)
            if lost:
                self._doubted.setdefault(split.item, {})[split.author] = None
                self.undo(split, now)

    # -- the origin ----------------------------------------------------------------

    def suspend(self, item: int) -> None:
        """Ask for no more units: the origin sends it all."""
        split = self._open.get(item)
        if split is not None:
            self._site.catalogue.shift(Step.HIDE, split.bits)

    def resume(self, item: int) -> bool:
        """Go on with units, the origin failed; False if the object is not cut."""
        split = self._open.get(item)
        if split is None:
            return False
        self._site.catalogue.shift(Step.RESUME, 1 << item)
        self._site.catalogue.shift(Step.SHOW, split.listed_bits)
        return True

    # -- the end -------------------------------------------------------------------

    def finish(self, item: int, now: float) -> None:
        """The object is here and right: who disagreed with its hashes lied."""
        self._doubted.pop(item, None)
        split = self._open.get(item)
        if split is None:
            return
        whole = not less(split.bits, self._site.catalogue.having(State.DONE))
        self._retire(split, now)
        if whole:
            for peer in split.struck:
                self._site.drop(peer, Blame.WRONG_BYTES, now)

    def convict(self, split: Split, now: float) -> None:
        """The object is wrong though its units are right: the author lied."""
        if split.author is not None:
            self._site.drop(split.author, Blame.FALSE_HASHES, now)
        self.undo(split, now)

    def undo(self, split: Split, now: float) -> None:
        """Forget the units; the object is open again, and who was struck may give."""
        for peer in split.struck:
            neighbour = self._site.neighbours.get(peer)
            if neighbour is not None:
                neighbour.absent = less(neighbour.absent, 1 << split.item)
        self._retire(split, now)
        self._site.catalogue.shift(Step.UNSPLIT, 1 << split.item)
        self._site.epoch += 1

    def abandon(self, unwanted: int, now: float) -> None:
        """Forget the units of objects that are not wanted any more."""
        for split in [s for s in self._open.values() if unwanted >> s.item & 1]:
            self.undo(split, now)

    def _retire(self, split: Split, now: float) -> None:
        site = self._site
        del self._open[split.item]
        self.paging = less(self.paging, 1 << split.item)
        site.catalogue.shift(Step.RETIRE, split.bits)
        site.withdraw_settled(now)
        site.emit(DiscardUnits(site.name(split.item)))
