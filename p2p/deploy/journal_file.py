"""Keeps a journal of updates in a file below a repository's `extensions/p2p`.

There it is on the disk of the deployments, is the same for all of them, and a tool of
OSTree leaves it alone. One process at a time changes it; reading takes no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator

from p2p.deploy.journal import MAX_BYTES, Journal, NewerVersionError, decode, encode
from p2p.errors import FormatError
from p2p.ostree.disk import disk_error, write_file, writing
from p2p.ostree.lock import locked

DIRECTORY = "extensions/p2p/updates"


def journal_path(repo_path: str, place: str) -> str:
    """Return where the journal of a place of deployments is."""
    name = hashlib.sha256(os.path.realpath(place).encode()).hexdigest()[:16]
    return os.path.join(repo_path, DIRECTORY, f"{name}.json")


class JournalFile:
    """A journal and the file it is kept in.

    Attributes:
        replaced: why what was there could not be read and was set aside; else "".

    """

    def __init__(self, path: str) -> None:
        """Keep it at this path; nothing is read or written yet."""
        self.path = path
        self.journal = Journal()
        self.replaced = ""

    @contextlib.contextmanager
    def changing(self, *, timeout_seconds: float) -> Iterator[None]:
        """Hold the journal for a change, and read what is there.

        One that cannot be read is set aside: a device that refused to go on would get
        no updates any more.

        Raises:
            LockedError: another process carries an update out, for longer than that.
            RepositoryError: the disk says no.

        """
        with writing(self.path):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            lock = f"{self.path}.lock"
            with locked(lock, exclusive=True, timeout_seconds=timeout_seconds):
                self._load()
                yield

    def _load(self) -> None:
        self.journal = Journal()
        try:
            with open(self.path, "rb") as file:
                self.journal = decode(file.read(MAX_BYTES + 1))
        except FileNotFoundError:
            return
        except NewerVersionError as error:
            self._set_aside("newer", error, Journal(bad=error.bad))
        except FormatError as error:
            self._set_aside("damaged", error, Journal())

    def _set_aside(self, why: str, error: FormatError, left: Journal) -> None:
        """Put what is left in place of what is there, and keep that beside it."""
        aside = f"{self.path}.{why}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        os.link(self.path, aside)
        self.save(left)
        self.replaced = str(error)

    def save(self, journal: Journal) -> None:
        """Make a journal durable; errors as `p2p.ostree.disk.writing`."""
        with writing(self.path):
            write_file(self.path, encode(journal), fsync=True)
        self.journal = journal


def read_journal(path: str) -> Journal:
    """Return the journal at a path, empty if there is none, and change nothing.

    Raises:
        FormatError: it cannot be read by this version.
        RepositoryError: the disk says no.

    """
    try:
        with open(path, "rb") as file:
            return decode(file.read(MAX_BYTES + 1))
    except FileNotFoundError:
        return Journal()
    except OSError as error:
        raise disk_error(path, error) from None
