"""Large objects: cut into units, each checked against a list of hashes.

Theory of operation: a neighbour that has a large object, or part of it, gives the
list of its units' hashes, signed by whoever made it. From then on the units are
asked of whoever has them, and passed on before the object is complete. If a unit is
not what the list says, either the giver lies or the list does: the giver is not asked
for this object again, and the blame is kept until the object's own checksum decides.
If it is right, the list was, and those givers are dropped. If it is wrong although
every unit agreed with the list, its author is dropped and they are forgiven.

A long list comes in pages, which may have several authors, because the first may leave
before it gave them all. If the object is wrong then, it is not known whose page was,
and from then on all pages of this object must have one author.

A list that somebody contradicts is given up for a while, without blame, if nobody
alive fulfils it, if its units come too slowly, or if they are too many to be taken on
trust: then another list has its turn. Each time a list comes back it is trusted with
twice as much, so that the true one prevails in the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from p2p.ostree.objects import MAX_METADATA_BYTES
from p2p.swarm.action import AcceptHashes, Assemble, Blame, DiscardUnits
from p2p.swarm.bits import less, span, unite
from p2p.swarm.event import HashesDelivered
from p2p.swarm.lifecycle import State, Step
from p2p.swarm.neighbour import Neighbour
from p2p.swarm.site import Site
from p2p.wire.messages import DeviceId

# A contradicted list whose units come slower than this is given up for a while.
_CONTESTED_PAUSE = 2.0
# For how long the first time; others have their turn meanwhile.
_DOUBT = 2.0


class Verdict(Enum):
    """What came of a page of hashes."""

    TAKEN = "its units are asked for from now on"
    SMALL = "the object is small enough to be asked for as a whole"
    OTHER = "it is by another author than the pages before, and must not be"
    LATER = "not now: enough of its author is unproved"
    DISTRUSTED = "its author lied before; who passed it on may not know that"
    USELESS = "it cannot be true, or does not continue the list in force"


@dataclass(slots=True)
class Doubt:
    """How often an author's list of one object was given up, and until when it is."""

    times: int = 0
    until: float = 0.0


@dataclass(slots=True, eq=False)
class Split:
    """A large object under way.

    Attributes:
        item: the object.
        first, count: its units' items.
        bits: all of them.
        listed: how many of them have hashes yet.
        author: who signed the first hashes; None if the publisher did.
        pages: who signed those of the units from each of these numbers on.
        struck: who has the object and gave a unit that disagrees with them.
        denied: who gave one and has a part of it, or has it and denies a unit.
        moved: when the last unit came that agrees.
        taken: bytes of those.

    """

    item: int
    size: int
    first: int
    count: int
    author: DeviceId | None
    pages: dict[int, DeviceId | None] = field(default_factory=dict)
    listed: int = 0
    struck: dict[DeviceId, None] = field(default_factory=dict)
    denied: dict[DeviceId, None] = field(default_factory=dict)
    moved: float = 0.0
    taken: int = 0
    bits: int = field(init=False)

    def __post_init__(self) -> None:
        self.bits = span(self.first, self.count)

    @property
    def is_mixed(self) -> bool:
        """Whether its hashes have several authors."""
        return len(set(self.pages.values())) > 1

    def author_of(self, unit: int) -> DeviceId | None:
        """Return who signed the hash of a unit, which is given by its item."""
        return self.pages[max(k for k in self.pages if k <= unit - self.first)]

    @property
    def listed_bits(self) -> int:
        """The units whose hashes are known."""
        return span(self.first, self.listed)


class Splits:
    """All large objects under way.

    Attributes:
        paging: objects of whose hashes a page is missing, asked for or not.

    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._open: dict[int, Split] = {}
        self._doubts: dict[int, dict[DeviceId | None, Doubt]] = {}
        self._unmixed: set[int] = set()
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

    @property
    def nearly_whole(self) -> int:
        """All units of objects of which most units are here."""
        return unite(s.bits for s in self._open.values() if 4 * s.taken > 3 * s.size)

    def units_of(self, objects: int) -> int:
        """Return all units of those of the objects that are cut."""
        bits = 0
        for item, split in self._open.items():
            if objects >> item & 1:
                bits |= split.bits
        return bits

    # -- hashes --------------------------------------------------------------------

    def take_hashes(self, item: int, page: HashesDelivered, now: float) -> Verdict:
        """Take a page of hashes."""
        site = self._site
        if page.author in site.banned:
            return Verdict.DISTRUSTED
        if (
            site.catalogue.signed >> item & 1
            and page.size != site.catalogue.sizes[item]
        ):
            return Verdict.USELESS
        split = self._open.get(item)
        if split is None:
            verdict = self._check_first(item, page, now)
            if verdict is not Verdict.TAKEN:
                return verdict
            split = self._cut(item, page, now)
        elif not self._fits(split, page):
            return Verdict.USELESS
        elif page.author != split.author and item in self._unmixed:
            if split.author in site.neighbours:
                return Verdict.OTHER
            # The rest of its list may never come.
            self.undo(split, now)
            return Verdict.LATER
        split.pages[page.first] = page.author
        site.catalogue.shift(Step.SHOW, span(split.first + split.listed, page.count))
        split.listed += page.count
        name = site.name(item)
        site.emit(
            AcceptHashes(
                page.peer, page.request, name, page.size, page.first, page.author
            )
        )
        return Verdict.TAKEN

    def _fits(self, split: Split, page: HashesDelivered) -> bool:
        return (
            page.size == split.size
            and page.first == split.listed
            and 0 < page.count <= split.count - split.listed
        )

    def _check_first(self, item: int, page: HashesDelivered, now: float) -> Verdict:
        """Judge the first page of a list."""
        site = self._site
        tuning = site.tuning
        if page.size <= tuning.large_bytes:
            site.catalogue.hint_size(item, page.size)
            return Verdict.SMALL
        count = -(-page.size // tuning.unit_bytes)
        if page.first or not 0 < page.count <= count <= tuning.max_units:
            return Verdict.USELESS
        if site.catalogue.metadata >> item & 1 and page.size > MAX_METADATA_BYTES:
            return Verdict.USELESS
        if site.catalogue.unit_count + count > tuning.max_unit_items:
            return Verdict.USELESS
        if not site.catalogue.having(State.OPEN, State.ASKED) >> item & 1:
            return Verdict.USELESS
        doubt = self._doubts.get(item, {}).get(page.author)
        if doubt is not None and now < doubt.until and self._has_other(item, page, now):
            return Verdict.LATER
        unproved = sum(s.count for s in self._open.values() if s.author == page.author)
        if unproved and unproved + count > tuning.unproved_units:
            return Verdict.LATER
        return Verdict.TAKEN

    def _has_other(self, item: int, page: HashesDelivered, now: float) -> bool:
        """Tell whether somebody else may have another list."""
        return any(
            neighbour.offers(now) >> item & 1
            for neighbour in self._site.neighbours.values()
            if neighbour.is_live and neighbour.id != page.peer
        )

    def _cut(self, item: int, page: HashesDelivered, now: float) -> Split:
        site = self._site
        catalogue = site.catalogue
        catalogue.shift(Step.SPLIT, 1 << item)
        catalogue.hint_size(item, page.size)
        first, count = catalogue.add_units(item, page.size)
        split = Split(item, page.size, first, count, page.author, moved=now)
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
        """Note whether a page of hashes is missing."""
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

    def strike(self, split: Split, neighbour: Neighbour, *, gave: bool) -> None:
        """Note that a neighbour contradicts the list, which may be false."""
        # Who has but a part of it may have been deceived by another list.
        is_whole = neighbour.holds >> split.item & 1
        contradicting = split.struck if gave and is_whole else split.denied
        contradicting[neighbour.id] = None
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
        """Give up lists that somebody contradicts, unless they hold what they say."""
        site = self._site
        arriving = site.catalogue.having(State.SPLIT)
        contested = [
            split
            for split in self._open.values()
            if (split.struck or split.denied) and arriving >> split.item & 1
        ]
        if not contested:
            return
        held = site.held_by_others()
        for split in contested:
            doubts = self._doubts.setdefault(split.item, {})
            doubt = doubts.setdefault(split.author, Doubt())
            lost = less(split.bits & site.catalogue.having(State.OPEN), held)
            is_slow = now - split.moved > _CONTESTED_PAUSE
            is_much = split.taken > site.tuning.credit_bytes << min(doubt.times, 10)
            if lost or is_slow or is_much:
                doubt.until = now + _DOUBT * 2.0 ** min(doubt.times, 10)
                doubt.times += 1
                if split.is_mixed:
                    self._unmixed.add(split.item)
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
        """The object is here and right: who disagrees with it lied."""
        self._doubts.pop(item, None)
        self._unmixed.discard(item)
        split = self._open.get(item)
        if split is None:
            return
        whole = not less(split.bits, self._site.catalogue.having(State.DONE))
        self._retire(split, now)
        if self._site.catalogue.sizes[item] != split.size:
            self._blame_authors(split, now)
        elif whole:
            for peer in split.struck:
                self._site.drop(peer, Blame.WRONG_BYTES, now)
            for peer in split.denied:
                neighbour = self._site.neighbours.get(peer)
                if neighbour is not None:
                    neighbour.faults += 1

    def _blame_authors(self, split: Split, now: float) -> None:
        for author in dict.fromkeys(split.pages.values()):
            if author is not None:
                self._site.drop(author, Blame.FALSE_HASHES, now)

    def convict(self, split: Split, now: float) -> None:
        """The object is wrong though its units are right: an author lied."""
        if split.is_mixed:
            self._unmixed.add(split.item)
        else:
            self._blame_authors(split, now)
        self.undo(split, now)

    def undo(self, split: Split, now: float) -> None:
        """Forget the units; the object is open again, and who was struck may give."""
        for peer in (*split.struck, *split.denied):
            neighbour = self._site.neighbours.get(peer)
            if neighbour is not None:
                neighbour.absent = less(neighbour.absent, 1 << split.item)
        for neighbour in self._site.neighbours.values():
            had = neighbour.announced & split.bits
            if had and not neighbour.announced >> split.item & 1:
                # It has them still, for the list that comes next.
                neighbour.announce_early(split.item, had >> split.first)
        self._retire(split, now)
        # If the origin gave it meanwhile, what the writer says of that comes too late.
        landed = self._site.landed.pop(split.item, None)
        if landed is not None:
            self._site.backlog -= landed.size
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
