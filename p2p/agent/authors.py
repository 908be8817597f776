"""Who answers for a list of unit hashes: its author, as far as we can know them.

A list is signed with a key that its author announced to the neighbours it met. If we
met it, blame goes there, through whatever relays. A key that nobody we met announced
is taken for a device of its own: it is honest of a relay to pass such a list on, which
it has not seen to be false yet. Once one turned out to be false, its relay answers
for what it passes on of strangers, so that nobody can hide behind made-up keys.
"""

from __future__ import annotations

import hashlib

from p2p.wire.messages import DeviceId

# Keys of neighbours met in one update, and of strangers.
MAX_SIGNERS = 4096


class Authors:
    """The keys that lists were or may be signed with."""

    def __init__(self) -> None:
        """Nobody was met yet."""
        self._claimants: dict[bytes, set[DeviceId]] = {}
        self._relays: dict[DeviceId, set[DeviceId]] = {}
        self._answering: set[DeviceId] = set()

    def add(self, peer: DeviceId, key: bytes) -> None:
        """Note which key a neighbour says it signs unit hashes with."""
        claimants = self._claimants.get(key, set())
        if key and (claimants or len(self._claimants) < MAX_SIGNERS):
            self._claimants[key] = claimants | {peer}

    def of(self, giver: DeviceId, signer: bytes) -> DeviceId:
        """Return who answers for a list that a neighbour gave.

        It does so itself if the key is its own or is claimed by several: else
        somebody could claim another's key and then be banned.
        """
        claimants = self._claimants.get(signer, set())
        if len(claimants) == 1:
            return next(iter(claimants))
        if claimants or giver in self._answering or len(self._relays) >= MAX_SIGNERS:
            return giver
        stranger = DeviceId(hashlib.sha256(signer).hexdigest())
        self._relays.setdefault(stranger, set()).add(giver)
        return stranger

    def convict(self, author: DeviceId) -> bool:
        """Note that a list was false; tell whether its author is a stranger."""
        relays = self._relays.get(author, set())
        self._answering |= relays
        return bool(relays)
