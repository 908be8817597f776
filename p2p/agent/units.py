"""What neighbours get of large objects: units, and the signed hashes of units.

Both come from the repository if the object is whole. While it arrives, its units come
from where they wait, and the hashes are passed on with their author's signature, so
that blame reaches whoever made a false list up. All of it blocks on the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2p.agent.hash_lists import HashLists
from p2p.agent.scratch import Scratch
from p2p.errors import ObjectNotFoundError
from p2p.ostree.canonical import CanonicalReader
from p2p.wire import messages as m
from p2p.wire.hashes import statement


@dataclass(frozen=True, slots=True)
class HashSigner:
    """Signs unit hashes, so that a false list is blamed on its author."""

    public: bytes
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Units:
    """The large objects of this device, whole or arriving."""

    reader: CanonicalReader
    lists: HashLists
    scratch: Scratch
    signer: HashSigner

    def unit(self, request: m.GetUnit) -> m.Message:
        """Answer GET_UNIT; errors as `CanonicalReader.read_range`."""
        name, offset, length = request.name, request.offset, request.length
        # In this order, because objects move from there into the repository.
        try:
            data = self.scratch.read(name, offset, length)
        except OSError as error:
            raise ObjectNotFoundError(f"a unit of {name}: {error}") from None
        if data is None:
            data = self.reader.read_range(name, offset, length)
        if not data:
            return m.Rejected(request.request, m.Refusal.RANGE, "past the end")
        return m.Unit(request.request, data)

    def hashes(self, request: m.GetHashes) -> m.Message:
        """Answer GET_HASHES; errors as `HashLists.page`."""
        name, first, count = request.name, request.first, request.count
        page = self.scratch.page(name, first, count)
        if page is not None:
            return m.Hashes(
                request=request.request,
                size=page.size,
                first=first,
                hashes=page.hashes,
                signer=page.signer,
                signature=page.signature,
            )
        size, hashes = self.lists.page(name, first, count)
        if not hashes:
            return m.Rejected(request.request, m.Refusal.RANGE, "past the end")
        return m.Hashes(
            request=request.request,
            size=size,
            first=first,
            hashes=hashes,
            signer=self.signer.public,
            signature=self.signer.sign(statement(name, size, first, hashes)),
        )
