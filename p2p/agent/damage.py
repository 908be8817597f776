"""What turned out to be damaged here when a neighbour asked for it.

The neighbour takes it from elsewhere; a person must hear of it, because the same bytes
may be a file of the running system.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from p2p.errors import DamagedObjectError, ObjectNotFoundError
from p2p.ostree.deployments import deployed_commits, deployed_files
from p2p.ostree.objects import Checksum, Commit, DirTree, ObjectName
from p2p.ostree.places import find_places
from p2p.ostree.repo import Repo

_log = logging.getLogger(__name__)

# The commits that are deployed are searched for each of these; where there are more
# a whole disk is failing.
MAX_LOOKED_FOR = 20
_MAX_NAMED = 5


class Damage:
    """The damaged objects of a repository, as far as they were come upon."""

    def __init__(self, repo: Repo) -> None:
        """Nothing is known yet."""
        self._repo = repo
        self._known: dict[ObjectName, str] = {}

    def problems(self) -> list[str]:
        """Return a sentence for each."""
        return list(self._known.values())

    def found(self, name: ObjectName) -> None:
        """Take note of a damaged object, once; blocks on the disk."""
        if name in self._known or len(self._known) >= MAX_LOOKED_FOR:
            return
        text = f"object {name} is damaged"
        files = list(self._deployed(name))
        if files:
            more = len(files) - _MAX_NAMED
            text += f"; it is deployed as {', '.join(files[:_MAX_NAMED])}"
            text += f" and {more} more" if more > 0 else ""
        self._known[name] = f"{text} (`p2p fsck --repair` says all and removes it)"
        _log.error("%s", self._known[name])

    def _deployed(self, name: ObjectName) -> Iterator[str]:
        places = find_places({name}, self._commits(), self._load)[name]
        return deployed_files(self._repo, name, places)

    def _commits(self) -> Iterator[tuple[Checksum, Commit]]:
        for checksum in deployed_commits(self._repo):
            try:
                yield checksum, self._repo.load_commit(checksum)
            except (ObjectNotFoundError, DamagedObjectError):
                continue

    def _load(self, checksum: Checksum) -> DirTree | None:
        try:
            return self._repo.load_dirtree(checksum)
        except (ObjectNotFoundError, DamagedObjectError):
            return None
