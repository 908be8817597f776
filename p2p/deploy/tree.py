"""Deploys into a directory of its own: no boot loader, no /etc to merge.

ROOT/current is a relative link to ROOT/deployments/COMMIT.SERIAL, a checkout whose
files are hard links to the repository's objects where that is possible. A checkout is
complete and on the disk before the link is replaced, in one rename; so whenever the
machine stops, `current` names the whole old tree or the whole new one.
ROOT/deployments.json says what came before it (`p2p.deploy.record`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from p2p.deploy.deployment import Deployment, Outcome, Standing, State
from p2p.deploy.record import (
    MAX_BYTES,
    Entry,
    Record,
    commit_of,
    serial_of,
)
from p2p.errors import DeployError, ObjectNotFoundError
from p2p.ostree.checkout import CheckoutOptions, checkout
from p2p.ostree.config import RepoMode
from p2p.ostree.deployments import TREES, remember_root
from p2p.ostree.disk import sync_directory, write_file, writing
from p2p.ostree.lock import locked
from p2p.ostree.mounts import mount_points
from p2p.ostree.objects import Checksum
from p2p.ostree.publish import is_complete
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo

_RECORD = "deployments.json"
_CURRENT = "current"
_LOCK = ".lock"
_NEW_LINK = ".current.new"
_NEW_RECORD = f".{_RECORD}-"
# What an empty filesystem has, and what a first deployment that was killed leaves.
_EMPTY = frozenset({_LOCK, "lost+found"})
_USER_MODES = (RepoMode.BARE_USER, RepoMode.BARE_USER_ONLY)
# How long another deployment into the same place may take.
_TURN_SECONDS = 600.0


class TreeDeployer:
    """Deploys commits of a repository into one directory; see `Deployer`."""

    def __init__(
        self,
        repo: Repo,
        root: str | os.PathLike[str],
        *,
        user_mode: bool | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Deploy into `root`, which is made when it is first deployed to.

        Args:
            repo: where the commits are.
            root: a directory for this alone, best on the repository's filesystem.
            user_mode: no owners and xattrs (`p2p checkout -U`). By default so for an
                ordinary user, and where only such files can be hard links.
            clock: tells when something was deployed.

        """
        self._repo = repo
        self._root = os.path.abspath(root)
        self._trees = os.path.join(self._root, TREES)
        self._link = os.path.join(self._root, _CURRENT)
        if user_mode is None:
            user_mode = os.geteuid() != 0 or repo.config.mode in _USER_MODES
        self._user_mode = user_mode
        self._fsync = repo.config.fsync
        self._clock = clock

    # -- reading ---------------------------------------------------------------

    def list(self) -> tuple[Deployment, ...]:
        """Return the deployments; see `Deployer`."""
        record, current = self._look()
        if record is None:
            return ()
        return self._describe(record.settled(current, self._exists), current)

    def standing(self) -> Standing:
        """Return what is current; a tree needs no boot."""
        there = self.list()
        current = [each.commit for each in there if each.state is State.CURRENT]
        commit = current[0] if current else None
        return Standing(
            running=commit,
            default=commit,
            kept=frozenset(each.commit for each in there),
            boots=False,
        )

    def claim(self) -> str:
        """Return nothing: a tree is nobody else's."""
        return ""

    def _look(self) -> tuple[Record | None, str | None]:
        """Return record and link as they were at one moment, without the lock."""
        while True:
            current = self._current()
            record = self._read_record()
            if current == self._current():
                return record, current

    def _describe(self, record: Record, current: str | None) -> tuple[Deployment, ...]:
        kept = (e.id for e in record.entries if e.id not in record.order)
        states = [
            (each, State.CURRENT if each == current else State.PREVIOUS)
            for each in record.order
        ] + [(each, State.OTHER) for each in kept]
        return tuple(
            self._deployment(record.entry(each), state)
            for each, state in states
            if self._exists(each)
        )

    def _deployment(self, entry: Entry, state: State) -> Deployment:
        return Deployment(
            id=entry.id,
            commit=entry.commit,
            refspec=entry.refspec,
            state=state,
            pinned=entry.pinned,
            time=entry.time,
            path=self._path(entry.id),
        )

    def _path(self, deployment_id: str) -> str:
        return os.path.join(self._trees, deployment_id)

    def _exists(self, deployment_id: str) -> bool:
        path = self._path(deployment_id)
        return os.path.isdir(path) and not os.path.islink(path)

    def _is_whole(self, deployment_id: str, commit: Checksum) -> bool:
        return commit_of(deployment_id) == commit and self._exists(deployment_id)

    def _current(self) -> str | None:
        """Return the id that the link names, whether or not that is there."""
        try:
            target = os.readlink(self._link)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            raise self._not_ours() from None
        directory, _, name = target.rpartition("/")
        if directory != TREES or commit_of(name) is None:
            raise self._not_ours()
        return name

    def _not_ours(self) -> DeployError:
        return DeployError(
            f"{self._link}: not a link to a deployment",
            hint="Somebody replaced it; move it away and deploy again.",
        )

    def _read_record(self) -> Record | None:
        path = os.path.join(self._root, _RECORD)
        try:
            with open(path, "rb") as file:
                return Record.parse(file.read(MAX_BYTES + 1), where=path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    # -- changing --------------------------------------------------------------

    def deploy(self, refspec: str, commit: Checksum) -> Outcome:
        """Check a commit out and make it current; see `Deployer`."""
        with self._changing() as (record, notes):
            current = self._current()
            if current is not None and self._is_whole(current, commit):
                done = self._deployment(record.entry(current), State.CURRENT)
                return Outcome(done, changed=False, notes=notes)
            new = Entry(
                id=self._new_id(commit), refspec=refspec, time=int(self._clock())
            )
            try:
                self._keep(record.owner, commit)
                self._check_out(new.id, commit)
            except BaseException:
                self._clear(record, current)
                raise
            return self._switch(record.with_entry(new), new.id, notes)

    def rollback(self, to: Checksum | None = None) -> Outcome:
        """Make the previous deployment current again; see `Deployer`."""
        with self._changing() as (record, notes):
            current = self._current()
            previous = next(
                (
                    each
                    for each in record.order
                    if each != current
                    and self._exists(each)
                    and to in (None, commit_of(each))
                ),
                None,
            )
            if previous is None:
                raise DeployError(
                    f"{self._root}: no other deployment to go back to",
                    hint="Deploy a commit instead: `p2p deploy`.",
                )
            return self._switch(record, previous, notes)

    def pin(self, deployment_id: str, *, pinned: bool = True) -> Outcome:
        """Keep a deployment until it is unpinned; DeployError if it is not there."""
        with self._changing() as (record, notes):
            if deployment_id not in record.kept() or not self._exists(deployment_id):
                raise DeployError(
                    f"{self._root}: there is no deployment {deployment_id[:80]}",
                    hint="See `p2p deployments`.",
                )
            entry = replace(record.entry(deployment_id), pinned=pinned)
            changed = entry != record.entry(deployment_id)
            new = record.with_entry(entry)
            if changed:
                self._write_record(new)
            current = self._current()
            described = self._describe(new, current)
            found = next(each for each in described if each.id == deployment_id)
            left = self._clear(new.settled(current, self._exists), current)
            return Outcome(found, changed=changed, notes=notes + left)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[Record, tuple[str, ...]]]:
        """Hold this place for a change; give what holds, and what could not be cleared.

        What a change that was killed left behind is cleared away first.
        """
        if os.path.lexists(self._root) and not os.path.isdir(self._root):
            raise DeployError(
                f"{self._root}: not a directory", hint="Give another --tree."
            )
        with writing(self._root):
            os.makedirs(self._root, exist_ok=True)
            lock = os.path.join(self._root, _LOCK)
            with locked(lock, exclusive=True, timeout_seconds=_TURN_SECONDS):
                record = self._read_record() or self._found()
                os.makedirs(self._trees, exist_ok=True)
                current = self._current()
                settled = record.settled(current, self._exists)
                if settled != record:
                    self._write_record(settled)
                yield settled, self._clear(settled, current)

    def _found(self) -> Record:
        """Take a directory that is empty, or whose record was removed by hand.

        Nothing else: what is not known in a place of deployments is removed.
        """
        current = self._current()
        taken = current is not None and self._exists(current)
        known = _EMPTY | ({_CURRENT, TREES} if taken else set())
        there = [e for e in os.listdir(self._root) if not e.startswith(_NEW_RECORD)]
        if not known.issuperset(there):
            raise DeployError(
                f"{self._root}: neither empty nor a place of deployments",
                hint="Give a new directory: what is not known there is removed.",
            )
        record = Record(owner=os.urandom(8).hex())
        self._write_record(record)
        return record

    def _write_record(self, record: Record) -> None:
        path = os.path.join(self._root, _RECORD)
        write_file(path, record.serialize(), fsync=self._fsync)

    def _new_id(self, commit: Checksum) -> str:
        used = [
            serial_of(name)
            for name in os.listdir(self._trees)
            if commit_of(name) == commit
        ]
        return f"{commit}.{max(used, default=-1) + 1}"

    def _keep(self, owner: str, commit: Checksum) -> None:
        """Have a ref keep a commit that is complete; from now on no prune takes it."""
        with self._repo.lock(exclusive=False):
            if not is_complete(self._repo, commit):
                raise ObjectNotFoundError(
                    f"{self._repo.path}: commit {commit} is not here as a whole",
                    hint="Pull it first: `p2p pull`.",
                )
            self._repo.refs.set(RefPath(f"{_refs_of(owner)}{commit}"), commit)
            remember_root(self._repo, owner, self._root)

    def _check_out(self, deployment_id: str, commit: Checksum) -> None:
        options = CheckoutOptions(user_mode=self._user_mode, fsync=self._fsync)
        checkout(self._repo, commit, self._path(deployment_id), options)

    def _switch(self, record: Record, to: str, notes: tuple[str, ...]) -> Outcome:
        """Put a deployment that is complete in force, and clear away what is left."""
        self._write_record(record)
        fresh = os.path.join(self._root, _NEW_LINK)
        os.symlink(f"{TREES}/{to}", fresh)
        os.rename(fresh, self._link)
        if self._fsync:
            sync_directory(self._root)
        settled = record.settled(to, self._exists)
        self._write_record(settled)
        left = self._clear(settled, to)
        done = self._deployment(settled.entry(to), State.CURRENT)
        return Outcome(done, changed=True, notes=notes + left)

    def _clear(self, record: Record, current: str | None) -> tuple[str, ...]:
        """Remove what the record does not know; return what that was not possible for.

        It is no reason to fail: what is in force is, and the next change tries again.
        """
        kept = record.kept() | ({current} if current is not None else set())
        notes = []
        for name in os.listdir(self._trees):
            if name in kept:
                continue
            try:
                _remove_tree(self._path(name))
            except OSError as error:
                notes.append(
                    f"{self._path(name)} is not needed any more and cannot be "
                    f"removed: {error.filename}: {error.strerror}"
                )
        for name in os.listdir(self._root):
            if name == _NEW_LINK or name.startswith(_NEW_RECORD):
                os.unlink(os.path.join(self._root, name))
        commits = {commit_of(each) for each in kept}
        for ref, commit in list(self._repo.refs.all(_refs_of(record.owner))):
            if commit not in commits:
                self._repo.refs.delete(ref)
        return tuple(notes)


def _refs_of(owner: str) -> str:
    """Return below what the commits of a place are kept."""
    return f"heads/p2p/deployed/{owner}/"


def _remove_tree(path: str) -> None:
    """Remove a tree, also one with directories that its owner may not write.

    Raises:
        OSError: it cannot be removed, or what is mounted in it would go with it.

    """
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    if (point := _mounted_in(path)) is not None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), point)
    try:
        shutil.rmtree(path)
    except PermissionError:
        _unlock_directories(path)
        shutil.rmtree(path)


def _mounted_in(path: str) -> str | None:
    """Return a mount point in a directory, such as a bound /var; None if none is."""
    above = os.path.realpath(path) + "/"
    inside = (point for point in mount_points() if f"{point}/".startswith(above))
    return next(inside, None)


def _unlock_directories(path: str) -> None:
    # Directories are never hard links, so this changes no object.
    stack = [path]
    while stack:
        directory = stack.pop()
        os.chmod(directory, 0o700)
        with os.scandir(directory) as entries:
            stack += [e.path for e in entries if e.is_dir(follow_symlinks=False)]
