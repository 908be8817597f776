"""What a pull is asked for, what came of each ref, and what its parts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2p.agent.neighbourhood import Neighbourhood
from p2p.ostree.config import RemoteConfig
from p2p.ostree.objects import Checksum
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from p2p.trust.policy import Clock
from p2p.trust.sign import KeyId
from p2p.trust.verify import Verifier
from p2p.web.client.origin import Origin


@dataclass(frozen=True, slots=True)
class Wanted:
    """A ref, a ref with the commit it must be, or a commit alone.

    Attributes:
        ref: None where only the commit is wanted and no ref is set.
        commit: None for the ref's head at the origin.

    """

    ref: str | None
    commit: Checksum | None = None

    def __post_init__(self) -> None:
        if self.ref is None and self.commit is None:
            raise ValueError("neither a ref nor a commit")


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """What to pull.

    Attributes:
        wanted: nothing means all refs of the origin, for a mirror.
        mirror: set `refs/heads/REF` (or `refs/mirrors/…`) instead of the remote's.
        depth: how many ancestors to pull too; -1 means all that the origin has.
        metadata_only: only commits and their detached metadata; they stay partial.
        timestamp_check: refuse an older commit also where it was named.
        newer_than: refuse what is older than this commit.
        fsync: whether the result is durable in the end.
        confirmed_only: believe the origin alone what the head of a branch is.
        caches: other repositories of this machine to take objects from.

    """

    wanted: tuple[Wanted, ...]
    mirror: bool = False
    depth: int = 0
    metadata_only: bool = False
    timestamp_check: bool = False
    newer_than: Checksum | None = None
    fsync: bool = True
    confirmed_only: bool = False
    caches: tuple[Repo, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PullContext:
    """What one pull works with.

    Attributes:
        repo: what is pulled into.
        remote: its configuration.
        request: what is wanted.
        verifier: what the remote demands of commits.
        clock: tells what is known about the time now.
        origin: where from; None to ask neighbours only.
        neighbours: asked for commits while the origin is away; None if there are none.

    """

    repo: Repo
    remote: RemoteConfig
    request: PullRequest
    verifier: Verifier
    clock: Callable[[], Clock]
    origin: Origin | None
    neighbours: Neighbourhood | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A commit that was found to be wanted, and where it goes.

    Attributes:
        ref: its branch; None if the commit alone is wanted.
        path: the ref to set, None likewise.
        commit: its checksum.
        collection: what it must be bound to, if anything.
        named: whether the user named the commit, who may then go back in time.
        confirmed: whether the origin said that it is the head.

    """

    ref: str | None
    path: RefPath | None
    commit: Checksum
    collection: str | None = None
    named: bool = False
    confirmed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledRef:
    """What was pulled for a ref: the commit it names now, and the one before.

    `confirmed` tells whether the origin itself said that it is the head.
    """

    ref: str | None
    commit: Checksum
    previous: Checksum | None
    signed_by: tuple[KeyId, ...]
    confirmed: bool = False
