"""The publisher that has `ostree pull-local` import the commits.

It serves a sysroot and every configuration this program does not implement itself.
`ostree` verifies every object again, and links it where mode and owner allow.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from p2p.errors import LockedError, NoSpaceError, ReadOnlyError, RepositoryError
from p2p.ostree.config import RepoMode
from p2p.ostree.lock import locked
from p2p.ostree.objects import Checksum
from p2p.ostree.publish import (
    NativePublisher,
    Plan,
    Publication,
    Publisher,
    clear,
)
from p2p.ostree.refs import RefPath
from p2p.ostree.stage import Stage

# How long another such publisher may take before this one gives up.
_TURN_SECONDS = 600.0
_KEPT_OF_STDERR = 2000
# What `ostree` says, in the C locale, where it is the disk's or another's fault.
_SAYINGS: tuple[tuple[str, type[RepositoryError]], ...] = (
    ("Locking repo", LockedError),
    ("min-free-space", NoSpaceError),
    ("No space left on device", NoSpaceError),
    ("Read-only file system", ReadOnlyError),
    ("Permission denied", ReadOnlyError),
)


def publisher_for(stage: Stage) -> Publisher:
    """Return the publisher that this repository's configuration calls for."""
    target = stage.target
    if (
        target.config.unknown
        or target.config.mode is RepoMode.BARE_SPLIT_XATTRS
        or is_sysroot(target.path)
    ):
        return LibostreePublisher(stage)
    return NativePublisher(stage)


def is_sysroot(repo_path: str) -> bool:
    """Tell whether a repository is the `ostree/repo` of a bootable system."""
    ostree = os.path.dirname(os.path.realpath(repo_path))
    return os.path.basename(ostree) == "ostree" and os.path.isdir(
        os.path.join(ostree, "deploy")
    )


class LibostreePublisher:
    """Has `ostree pull-local` import the commits; it verifies every object again."""

    def __init__(self, stage: Stage, *, command: str = "ostree") -> None:
        """Publish from this store into its target with that program."""
        self._stage = stage
        self._command = command

    def publish(self, publication: Publication) -> None:
        """Import the commits and have the refs set with them.

        Raises:
            ObjectNotFoundError: something the commits need is gone; nothing is set.
            RepositoryError: `ostree` is missing or refused, with what it said; its
                subclasses where the lock or the disk was the reason.

        """
        plan = Plan.of(self._stage, publication)
        groups = _by_remote(publication)
        named = {checksum for _, checksum in publication.refs}
        # In one transaction with the first refs: else a prune might come between.
        loose = [c.checksum for c in publication.commits if c.checksum not in named]
        turn = os.path.join(self._stage.repo.path, "publish.lock")
        with locked(turn, exclusive=True, timeout_seconds=_TURN_SECONDS):
            for commit in publication.commits:
                if commit.detached is not None:
                    self._stage.put_commitmeta(commit.checksum, commit.detached)
            for remote, branches in groups.items():
                with self._staged_refs(branches):
                    self._pull_local(remote, [*branches, *loose], publication)
                loose = []
        clear(self._stage, plan, publication)

    @contextmanager
    def _staged_refs(self, branches: dict[str, Checksum]) -> Iterator[None]:
        """Have refs in the store for `ostree` to pull, as long as the block runs."""
        refs = self._stage.repo.refs
        try:
            for branch, checksum in branches.items():
                refs.set(RefPath(f"heads/{branch}"), checksum)
            yield
        finally:
            for branch in branches:
                refs.delete(RefPath(f"heads/{branch}"))

    def _pull_local(
        self, remote: str, names: Sequence[str], publication: Publication
    ) -> None:
        each = self._stage.target.config.per_object_fsync
        command = [
            self._command,
            "pull-local",
            "--untrusted",
            # The writer verified the commits, by rules at least as strict.
            "--disable-verify-bindings",
            f"--repo={self._stage.target.path}",
            *([f"--remote={remote}"] if remote else []),
            *(["--commit-metadata-only"] if publication.metadata_only else []),
            *([] if publication.fsync else ["--disable-fsync"]),
            *(["--per-object-fsync"] if each else []),
            self._stage.repo.path,
            *names,
        ]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
        except FileNotFoundError:
            raise RepositoryError(
                f"this repository is written by libostree, but `{self._command}` "
                "is not installed",
                hint="Install the package ostree.",
            ) from None
        if result.returncode:
            raise _refusal(self._stage.target.path, result)


def _refusal(path: str, result: subprocess.CompletedProcess[str]) -> RepositoryError:
    said = result.stderr.strip()[-_KEPT_OF_STDERR:]
    kind = next((kind for text, kind in _SAYINGS if text in said), RepositoryError)
    return kind(
        f"ostree pull-local into {path} failed: "
        f"{said or f'exit status {result.returncode}'}"
    )


def _by_remote(publication: Publication) -> dict[str, dict[str, Checksum]]:
    """Return what to pull at once: by remote ("" for heads), branch and commit."""
    groups: dict[str, dict[str, Checksum]] = {}
    for ref, checksum in publication.refs:
        kind, _, rest = ref.partition("/")
        if kind == "remotes":
            remote, _, branch = rest.partition("/")
        elif kind == "heads":
            remote, branch = "", rest
        else:
            raise RepositoryError(
                f"ref {ref}: mirrored collection-refs cannot be set through ostree"
            )
        groups.setdefault(remote, {})[branch] = checksum
    return groups or {"": {}}
