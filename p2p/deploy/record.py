"""The record of a tree deployer: what was deployed, and what was in force before.

It is JSON, replaced as a whole, and fields that are not known are ignored. What is in
force is not in it: that is the link `current`, and `Record.settled` says what the two
mean together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from p2p.errors import DeployError, FormatError
from p2p.ostree.objects import Checksum

MAX_BYTES = 1 << 20
_ID = re.compile(r"([0-9a-f]{64})\.([0-9]{1,9})")
_OWNER = re.compile(r"[0-9a-f]{16}")


def commit_of(deployment_id: str) -> Checksum | None:
    """Return the commit in a deployment's id; None if it is no id."""
    match = _ID.fullmatch(deployment_id)
    return Checksum(match[1]) if match else None


def serial_of(deployment_id: str) -> int:
    """Return the number behind the commit in an id."""
    return int(deployment_id.rpartition(".")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of one deployment."""

    id: str
    refspec: str | None = None
    time: int | None = None
    pinned: bool = False

    @property
    def commit(self) -> Checksum:
        """The commit it was made from."""
        return Checksum(self.id.partition(".")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Deployments in the order in which they came into force.

    Attributes:
        owner: names this place in the refs that keep its commits.
        order: ids, the newest first; one comes in after the link names it.
        entries: what is known of each; one comes in before the link names it.

    """

    owner: str
    order: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()

    def entry(self, deployment_id: str) -> Entry:
        """Return what is known of a deployment."""
        found = (entry for entry in self.entries if entry.id == deployment_id)
        return next(found, Entry(id=deployment_id))

    def with_entry(self, new: Entry) -> Record:
        """Return the record with an entry added or replaced."""
        kept = (entry for entry in self.entries if entry.id != new.id)
        return replace(self, entries=(*kept, new))

    def settled(self, current: str | None, exists: Callable[[str], bool]) -> Record:
        """Return what holds, given what the link `current` names.

        What was to come into force either did or is forgotten. Two stay in the order:
        the current one and the newest of the others that is still there.
        """
        newest = [] if current is None else [current]
        others = [each for each in self.order if each != current and exists(each)]
        order = tuple([*newest, *others][:2])
        entries = (
            entry
            for entry in self.entries
            if entry.id in order or (entry.pinned and exists(entry.id))
        )
        return replace(self, order=order, entries=tuple(entries))

    def kept(self) -> frozenset[str]:
        """Return the ids that must stay."""
        pinned = {entry.id for entry in self.entries if entry.pinned}
        return frozenset({*self.order, *pinned})

    def serialize(self) -> bytes:
        """Return the bytes of the file."""
        record = {
            "owner": self.owner,
            "order": self.order,
            "deployments": {
                entry.id: {
                    "refspec": entry.refspec,
                    "time": entry.time,
                    "pinned": entry.pinned,
                }
                for entry in self.entries
            },
        }
        return json.dumps(record, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes, *, where: str) -> Record:
        """Return the record in these bytes; DeployError unless they hold one."""
        try:
            if len(data) > MAX_BYTES:
                raise FormatError(f"larger than {MAX_BYTES} bytes")
            return _record(json.loads(data))
        except (ValueError, RecursionError, FormatError) as error:
            raise DeployError(
                f"{where}: damaged: {error}",
                hint="Remove it: what `current` names stays in force, and what else "
                "was deployed is forgotten.",
            ) from None


def _record(value: object) -> Record:
    match value:
        case {
            "owner": str(owner),
            "order": list(order),
            "deployments": dict(entries),
        } if _OWNER.fullmatch(owner):
            return Record(
                owner=owner,
                order=tuple(map(_id, order)),
                entries=tuple(
                    _entry(_id(key), fields) for key, fields in entries.items()
                ),
            )
    raise FormatError("not a record of deployments")


def _id(value: object) -> str:
    if not isinstance(value, str) or commit_of(value) is None:
        raise FormatError("not the id of a deployment")
    return value


def _entry(deployment_id: str, value: object) -> Entry:
    match value:
        case {
            "refspec": str() | None as refspec,
            "time": int() | None as time,
            "pinned": bool(pinned),
        }:
            return Entry(id=deployment_id, refspec=refspec, time=time, pinned=pinned)
    raise FormatError("not an entry of a deployment")
