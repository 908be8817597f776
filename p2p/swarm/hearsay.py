"""What neighbours say of sizes: taken to plan with, until what arrives refutes it.

Sizes are in no directory, so whoever has an object is believed about its size. Who
says that small objects are large would have us ask for the hashes of each, one round
trip an object. So it is kept who said what; each claim that a verified object refutes
is a fault, and of who is found doubtful all is forgotten.
"""

from __future__ import annotations

from p2p.swarm.bits import each, less, pack
from p2p.swarm.lifecycle import State
from p2p.swarm.neighbour import Neighbour
from p2p.swarm.site import Site


def take_sizes(site: Site, neighbour: Neighbour, sizes: list[tuple[int, int]]) -> None:
    """Plan with sizes that a neighbour told, of items of which none is known."""
    if neighbour.is_doubtful:
        return
    fresh = [(item, size) for item, size in sizes if not site.catalogue.sizes[item]]
    for item, size in fresh:
        site.catalogue.hint_size(item, size)
    neighbour.hinted |= pack(item for item, _ in fresh)


def take_large(site: Site, neighbour: Neighbour, item: int) -> None:
    """Plan with a neighbour's word that an object is large."""
    if not neighbour.is_doubtful:
        site.catalogue.mark_large(item)


def refute(site: Site, verified: int) -> None:
    """Compare what was said of these items with what they are."""
    wrong = verified & site.mistold
    site.mistold = less(site.mistold, verified)
    small = _small(site, verified)
    site.catalogue.large = less(site.catalogue.large, small)
    for neighbour in site.neighbours.values():
        lies = neighbour.hinted & wrong | (neighbour.refused | neighbour.lists) & small
        neighbour.hinted = less(neighbour.hinted, verified)
        neighbour.refused = less(neighbour.refused, verified)
        neighbour.lists = less(neighbour.lists, verified)
        if lies:
            neighbour.faults += lies.bit_count()
            if neighbour.is_doubtful:
                _forget(site, neighbour)


def _small(site: Site, verified: int) -> int:
    """Return those of the items that a batch carries, though some were called large."""
    catalogue = site.catalogue
    called = less(verified & catalogue.large, catalogue.units)
    bound = site.tuning.large_bytes
    large = pack(item for item in each(called) if catalogue.sizes[item] > bound)
    return less(less(verified, catalogue.units), large)


def _forget(site: Site, neighbour: Neighbour) -> None:
    """Plan without anything that a neighbour said."""
    said = neighbour.hinted | neighbour.refused | neighbour.lists
    site.catalogue.forget_sizes(said & site.catalogue.having(State.OPEN, State.ASKED))
    neighbour.hinted = neighbour.lists = 0
    neighbour.learned += 1
