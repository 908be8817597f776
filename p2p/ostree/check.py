"""Recompute one object of a repository and say what is wrong with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from p2p.errors import DamagedObjectError, FormatError, ObjectNotFoundError
from p2p.ostree.gvariant import codec
from p2p.ostree.objects import (
    MAX_METADATA_BYTES,
    Commit,
    DirMeta,
    DirTree,
    ObjectName,
    ObjectType,
    parse_metadata,
)
from p2p.ostree.repo import Repo

_XATTRS = codec("a(ayay)")
_PARSERS: dict[ObjectType, Callable[[bytes], object]] = {
    ObjectType.COMMIT: Commit.parse,
    ObjectType.DIRTREE: DirTree.parse,
    ObjectType.DIRMETA: DirMeta.parse,
    ObjectType.COMMITMETA: parse_metadata,
    ObjectType.TOMBSTONE_COMMIT: parse_metadata,
    ObjectType.FILE_XATTRS: _XATTRS.decode,
    ObjectType.FILE_XATTRS_LINK: _XATTRS.decode,
}
_NOT_ADDRESSED = frozenset(
    {
        ObjectType.COMMITMETA,
        ObjectType.TOMBSTONE_COMMIT,
        ObjectType.FILE_XATTRS_LINK,
    }
)


# The disk does not give back what was written to it.
_DISK_ERRORS = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})


class Verdict(StrEnum):
    """What is wrong with an object.

    DAMAGED is not what its name says; INVALID is, but nobody should have made it;
    MISSING is named by a complete commit; of UNREADABLE nothing is known.
    """

    DAMAGED = "damaged"
    INVALID = "invalid"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something wrong with one object."""

    name: ObjectName
    verdict: Verdict
    reason: str


def check_object(repo: Repo, name: ObjectName) -> Finding | None:
    """Return what is wrong with an object, or None; one that vanished is not wrong."""
    try:
        if name.type is ObjectType.FILE:
            with repo.open_content(name.checksum) as reader:
                reader.check(name.checksum, str(name))
        elif name.type in _PARSERS:
            return _check_metadata(repo, name)
    except (ObjectNotFoundError, FileNotFoundError):
        if os.path.lexists(repo.object_path(name)):
            return Finding(name, Verdict.DAMAGED, "its extended attributes are missing")
    except (DamagedObjectError, FormatError) as error:
        return Finding(name, Verdict.DAMAGED, str(error))
    except OSError as error:
        damaged = error.errno in _DISK_ERRORS
        verdict = Verdict.DAMAGED if damaged else Verdict.UNREADABLE
        return Finding(name, verdict, error.strerror or str(error))
    return None


def _check_metadata(repo: Repo, name: ObjectName) -> Finding | None:
    if name.type in _NOT_ADDRESSED:
        with open(repo.object_path(name), "rb") as file:
            _PARSERS[name.type](file.read(MAX_METADATA_BYTES + 1))
        return None
    data = repo.load_metadata(name)
    try:
        _PARSERS[name.type](data)
    except FormatError as error:
        return Finding(name, Verdict.INVALID, str(error))
    return None
